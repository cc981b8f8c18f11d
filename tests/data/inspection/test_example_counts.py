from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ranker.data.inspection.copies import Copies, Some
from ranker.data.inspection.judged import Spread
from ranker.data.inspection.overlap import Shared
from ranker.data.inspection.report import inspect_source
from ranker.data.pieces import TablePiece
from ranker.data.source import ExampleSource
from ranker.schemas import EXAMPLES


def examples(rows: Sequence[tuple[str, list[str], list[float], list[float | None] | None]]) -> TablePiece:
    columns = [[f"id of {query}" for query, *_ in rows], *zip(*(row[:3] for row in rows), strict=True)]
    scores = [row[3] for row in rows]
    return TablePiece(pa.table([*columns, [None] * len(rows), scores], schema=EXAMPLES))


def test_training_examples_are_counted_as_groups_and_as_a_collection(tmp_path: Path) -> None:
    train = examples(
        [
            ("who barks", ["dog", "cat", "cat"], [2.0, 0.0, 0.0], [0.9, 0.1, None]),
            ("who purrs", ["cat"], [1.0], None),
            ("who sings", ["dog", "fish"], [0.0, -1.0], None),
        ]
    )
    dev = examples([("who purrs", ["cat", "fish"], [0.5, 0.0], None)])
    found = inspect_source(ExampleSource("made", "test", {"train": [train], "dev": [dev]}), tmp_path)
    assert found.examples is not None
    groups = found.examples["train"]
    assert (groups.groups, groups.documents, groups.scored) == (3, 6, 1)
    assert (groups.documents_a_group, groups.positives_a_group) == (Spread(1, 2, 3), Spread(0, 2 / 3, 1))
    assert groups.labels == {"-1": 1, "0": 3, "1": 1, "2": 1}
    assert groups.without_positive == Some(1, ("who sings",))
    assert groups.without_negative == Some(1, ("who purrs",))
    assert groups.with_copies == Some(1, ("who barks",))
    assert found.examples["dev"].labels == {"0": 1, "0.5": 1}
    # As a collection: three documents, and 0.5 is no judgement, which is said and is no mistake.
    assert (found.documents.documents, found.queries.queries, found.pieces) == (3, 3, 2)
    assert found.repeats.doc_ids == Some() and found.repeats.documents == Copies()
    assert found.splits["train"].grades == {"-1": 1, "0": 2, "1": 1, "2": 1}
    assert (found.examples["dev"].fractional_labels, found.mistakes.count) == (1, 0)
    assert found.leakage["train/dev"] == Shared(1, 1, 0, 0)
    assert found.candidates is not None and found.candidates.documents_a_list == Spread(2, 2, 2)


def test_many_labels_are_counted_in_ten_ranges(tmp_path: Path) -> None:
    labels = [number / 100 for number in range(101)]
    group = examples([("q", [f"d{number}" for number in range(101)], labels, None)])
    found = inspect_source(ExampleSource("soft", "test", {"train": [group]}), tmp_path).examples
    assert found is not None
    assert list(found["train"].labels)[:2] == ["0 to 0.1", "0.1 to 0.2"]
    assert sum(found["train"].labels.values()) == 101 and max(found["train"].labels.values()) == 11
