"""What the judgements of a collection say about its queries, by position in the corpus."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.schemas import Collection, Corpus
from ranker.training.negatives import Keys


@dataclass(frozen=True)
class Known:
    """What the judgements say of the queries, in their order, by position in the corpus.

    Args:
        positives: relevant documents of each query.
        answers: the same, and those of other queries with the same text: none of them is a wrong answer.
        judged_negatives: documents judged irrelevant. held_out: documents that are relevant in other splits.
    """

    positives: list[list[int]]
    answers: list[list[int]]
    judged_negatives: list[list[int]]
    held_out: Keys

    @property
    def max_positives(self) -> int:
        """Of the query that has most."""
        return max(map(len, self.answers), default=0)


def judged(train: Collection) -> Known:
    """The judgements of a collection by position; documents that the corpus lacks are left out."""
    reserved = pa.chunked_array([train.reserved if train.reserved is not None else pa.array([], pa.string())])
    position = positions_of(train.documents, [train.qrels["doc_id"], reserved])
    held_out = np.array([position[doc_id] for doc_id in reserved.to_pylist() if doc_id in position], dtype=np.int64)
    out_of_reach = set(held_out.tolist())
    row_of = {query_id: row for row, query_id in enumerate(train.queries["query_id"].to_pylist())}
    positives: list[list[int]] = [[] for _ in row_of]
    negatives: list[list[int]] = [[] for _ in row_of]
    for judgement in train.qrels.to_pylist():
        level = judgement["relevance"]
        if 0 < level < train.relevance_level:
            continue  # neither an answer nor wrong for certain
        known = positives if level > 0 else negatives
        key = position.get(judgement["doc_id"])  # None: data.options.allow_missing lets such judgements through
        if key is not None and key not in out_of_reach:
            known[row_of[judgement["query_id"]]].append(key)
    return Known(positives, _shared(train.queries["text"].to_pylist(), positives), negatives, held_out)


def _shared(texts: Sequence[str], positives: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positives of all queries with the text of each."""
    by_text: dict[str, dict[int, None]] = {}
    for text, known in zip(texts, positives, strict=True):
        by_text.setdefault(text, {}).update(dict.fromkeys(known))
    return [[*dict.fromkeys([*known, *by_text[text]])] for text, known in zip(texts, positives, strict=True)]


def positions_of(corpus: Corpus, ids: Sequence[pa.ChunkedArray]) -> dict[str, int]:
    """doc_id -> its position in the corpus, for these ids only; unknown ones are left out."""
    wanted = pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.string()).unique()
    found: dict[str, int] = {}
    start = 0
    for block in corpus.blocks(["doc_id"]):
        rows = np.flatnonzero(pc.is_in(block["doc_id"], wanted).to_numpy())
        names = block["doc_id"].take(pa.array(rows)).to_pylist()
        found.update(zip(names, (rows + start).tolist(), strict=True))
        start += block.num_rows
    return found
