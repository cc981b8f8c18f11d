"""Examples of a mining run in Markdown: queries with their right answers, negatives and removed candidates."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ranker.data.labels import ids_at
from ranker.schemas import Collection
from ranker.scoring.scorer import probabilities
from ranker.training.choosing import Chosen

# Longest text of a document or query that is shown, in characters.
EXCERPT = 200
# Right answers of a query that are shown, of those judged and of those that the teacher found.
MOST_ANSWERS = 5

HEADS = ("", "similarity", "rank", "doc_id", "text")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SPECIAL = re.compile(r"[\\`*_\[\]<>|~$]|&(?=#?\w+;)")


class Row(NamedTuple):
    """A document of an example; None where a number is not known."""

    kind: str
    key: int
    similarity: float | None = None
    rank: str = ""
    logit: float | None = None


def markdown_examples(train: Collection, chosen: Chosen, count: int, seed: int) -> list[str]:
    """Lines on a seeded sample of ``count`` queries that got a negative; only their texts are read."""
    sample = sample_queries(chosen, count, seed)
    examples = {row: list(_rows(chosen, row)) for row in sample}
    keys = sorted({line.key for lines in examples.values() for line in lines})
    doc_ids = dict(zip(keys, ids_at(train.documents, np.array(keys, dtype=np.int64)).to_pylist(), strict=True))
    texts = train.texts(doc_ids.values())
    told = any(line.logit is not None for lines in examples.values() for line in lines)
    found = []
    for row, lines in examples.items():
        query = train.queries.slice(row, 1).to_pylist()[0]
        table = [_cells(line, doc_ids[line.key], texts[doc_ids[line.key]], told) for line in lines]
        lines_of_table = markdown_table([*HEADS[:3], *["probability"] * told, *HEADS[3:]], table, range(1, 3 + told))
        found += [f"### {plain(query['text'])} ({plain(query['query_id'])})", "", *lines_of_table, ""]
        found += _left_out(chosen, row)
    return found


def sample_queries(chosen: Chosen, count: int, seed: int) -> list[int]:
    """Rows of queries that got a negative, in their order."""
    rows = np.flatnonzero([bool(choice.negatives) for choice in chosen.choices])
    return sorted(np.random.default_rng(seed).permutation(rows)[:count].tolist())


def _rows(chosen: Chosen, row: int) -> Iterator[Row]:
    known, choice = chosen.pool.known, chosen.choices[row]
    similarity = dict(zip(known.answers[row], chosen.pool.answer_scores[row], strict=True))
    similarity |= {key: value for key, value, _ in choice.removed}
    for kind, answers in (("right", known.positives[row]), ("right, found by the teacher", choice.relabelled)):
        for key in answers[:MOST_ANSWERS]:
            yield Row(kind, key, similarity.get(key), logit=choice.logits.get(key))
    for key, value, rank in zip(choice.negatives, choice.similarities, choice.ranks, strict=True):
        judged = ", judged" if key in known.judged_negatives[row] else ""
        yield Row(f"negative{judged}", key, value, str(rank or "random"), choice.logits.get(key))
    for key, value, rule in choice.removed:
        if key not in choice.relabelled:
            yield Row(f"removed: {rule}", key, value, logit=choice.logits.get(key))


def _left_out(chosen: Chosen, row: int) -> list[str]:
    lists = (chosen.pool.known.positives[row], chosen.choices[row].relabelled)
    more = sum(max(0, len(answers) - MOST_ANSWERS) for answers in lists)
    return [f"{more} more right answers are not shown.", ""] if more else []


def _cells(row: Row, doc_id: str, text: str, told: bool) -> list[str]:
    teacher = [] if row.logit is None else [float(probabilities([row.logit])[0])]
    numbers = [_number(row.similarity), row.rank, *[_number(*teacher) if teacher else ""] * told]
    return [plain(row.kind), *numbers, plain(doc_id), plain(text)]


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3f}"


def plain(text: str) -> str:
    """The beginning of a text on one line, as Markdown that shows it letter by letter, in a table too."""
    line = CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
    if len(line) > EXCERPT:
        blank = line.rfind(" ", EXCERPT // 2, EXCERPT + 1)
        line = f"{line[: EXCERPT if blank < 0 else blank]} …"
    return SPECIAL.sub(r"\\\g<0>", line)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of a table; the columns ``right`` are aligned to the right."""
    rules = ["---:" if column in right else "---" for column in range(len(heads))]
    return ["| " + " | ".join(line) + " |" for line in (heads, rules, *rows)]
