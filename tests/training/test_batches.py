from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from ranker.schemas import GROUPS
from ranker.training.batches import Group, GroupFile, collate, cut, deal, step_rows, total_steps, write_group_file
from ranker.training.measure import passes
from ranker.training.schedule import rate_factor


def test_steps_walk_through_each_epoch_once_and_lose_nothing_between() -> None:
    rows = np.concatenate([step_rows(step, 4, 10, seed=1) for step in range(5)])  # 20 places: two epochs of 10
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert step_rows(2, 4, 10, seed=1).tolist() == rows[8:12].tolist()  # over the epochs' border, without the others
    assert step_rows(0, 4, 10, seed=2).tolist() != rows[:4].tolist()


def test_a_batch_larger_than_the_set_repeats_it() -> None:
    assert sorted(step_rows(0, 6, 3, seed=1)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("epochs", "max_steps", "steps"), [(1, None, 10), (0.5, None, 5), (3, 7, 7), (0.001, None, 1)])
def test_total_steps(epochs: float, max_steps: int | None, steps: int) -> None:
    assert total_steps(160, 16, epochs, max_steps) == steps


def test_workers_get_groups_of_like_length_in_every_piece() -> None:
    rows, sizes = np.arange(8), np.array([80, 10, 30, 20, 70, 60, 40, 50])
    dealt = deal(rows, sizes, num_pieces=2, num_workers=2)
    assert sizes[dealt].tolist() == [[[10, 30], [20, 40]], [[50, 70], [60, 80]]]


@pytest.mark.parametrize(
    ("labels", "size", "kept"),
    [
        ([1, 0, 0, 0], 3, [0, 1, 2]),
        ([1, 1, 1, 0, 0, 0], 4, [0, 1, 3, 4]),  # half of it positives
        ([1, 1, 1, 0], 4, [0, 1, 2, 3]),  # room for all
        ([1, 1, 1, 0], 3, [0, 1, 3]),  # too few negatives
        ([0.9, 0.7, 0.2], 2, [0, 1]),  # a teacher's scores
        ([0, 0, 1], 2, [0, 2]),
        ([0, 0], 8, [0, 1]),
    ],
)
def test_cut_keeps_negatives_beside_positives(labels: list[float], size: int, kept: list[int]) -> None:
    assert cut(labels, size) == kept


def test_groups_are_read_by_row(tmp_path: Path) -> None:
    rows = [{"query_id": str(n), "query": f"q{n}", "documents": ["ab"] * (1 + n % 2), "labels": [1.0] * (1 + n % 2)}
            for n in range(1030)]  # fmt: skip
    write_group_file(pa.Table.from_pylist(rows, schema=GROUPS), tmp_path / "groups.arrow")
    groups = GroupFile(tmp_path / "groups.arrow")
    assert len(groups) == 1030
    assert groups[1029] == Group("q1029", ("ab", "ab"), (1.0, 1.0))
    assert groups.sizes[[0, 1, 1028]].tolist() == [4, 8, 7]  # query and document, each as often as it is read


def test_a_group_without_one_label_a_document_is_named(tmp_path: Path) -> None:
    rows = [{"query_id": "0", "query": "q", "documents": ["a"], "labels": [1.0]},
            {"query_id": "1", "query": "q", "documents": ["a", "b"], "labels": [1.0]},
            {"query_id": "2", "query": "q", "documents": [], "labels": []}]  # fmt: skip
    with pytest.raises(ValueError, match=r"2 groups .* rows \[1, 2\]"):
        write_group_file(pa.Table.from_pylist(rows, schema=GROUPS), tmp_path / "groups.arrow")


def test_collate_lays_pairs_out_group_after_group(tiny_backbone: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    groups = [Group("cat", ("a cat", "a dog", "a bird"), (1, 0, 0)), Group("dog", ("a dog a dog",), (2,))]
    batch = collate(groups, tokenizer, max_length=6, group_size=2)
    assert batch.labels.tolist() == [[1, 0], [2, 0]]
    assert batch.mask.tolist() == [[True, True], [True, False]]
    words = [tokenizer.convert_ids_to_tokens(ids) for ids in batch.columns["input_ids"]]
    assert words[1] == ["[CLS]", "cat", "[SEP]", "a", "dog", "[SEP]"]
    assert words[2] == ["[CLS]", "dog", "[SEP]", "a", "dog", "[SEP]"]  # cut to six
    assert batch.lengths.tolist() == [6, 6, 6]


def test_every_worker_makes_equally_many_passes_over_the_dev_rows() -> None:
    lengths = np.arange(70)  # three passes of 32, 32 and 6
    mine, yours = (passes(lengths, rank, 2) for rank in (0, 1))
    assert len(mine) == len(yours) == 2
    assert sorted(np.concatenate(mine + yours)) == sorted([*range(70), *mine[0]])  # the first once more


def test_the_rate_rises_reaches_its_peak_and_falls() -> None:
    assert [rate_factor(step, 10, 0.2, "linear") for step in (0, 1, 2, 6, 9)] == [0.5, 1.0, 1.0, 0.5, 0.125]
    assert rate_factor(6, 10, 0.2, "cosine") == pytest.approx(0.5)
    assert rate_factor(9, 10, 0.0, "constant") == 1.0
    assert rate_factor(0, 1, 0.1, "linear") == 1.0
