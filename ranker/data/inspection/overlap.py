"""Every pair of splits of a data set, and what the two share."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.leakage import shared_documents, shared_queries
from ranker.data.splits import Splits


@dataclass(frozen=True)
class Shared:
    """What two splits share.

    Args:
        query_ids: judged in both. query_texts: different texts asked in both, whatever their case and white space.
        relevant_documents: by id. relevant_texts: different texts of relevant documents, whatever their ids; those of
            ``relevant_documents`` are among them.
    """

    query_ids: int
    query_texts: int
    relevant_documents: int
    relevant_texts: int

    @property
    def any(self) -> bool:
        """Whether there is something."""
        return bool(self.query_ids or self.query_texts or self.relevant_documents or self.relevant_texts)


def overlaps(data: Splits, texts: pa.Table) -> dict[str, Shared]:
    """``{"train/test": ...}`` for every pair of splits.

    Args:
        texts: doc_id and digest of the text, of the relevant documents.
    """
    queries, documents = shared_queries(data), shared_documents(data)
    ids = {split: table["query_id"].unique() for split, table in data.qrels.items()}
    digests = {split: _digests(data, split, texts) for split in data.qrels}
    found = {}
    for one, other in _pairs(data.qrels):
        pair = f"{one}/{other}"
        found[pair] = Shared(
            _num_shared(ids[one], ids[other]),
            queries.get(pair, 0),
            documents.get(pair, 0),
            _num_shared(digests[one], digests[other]),
        )
    return found


def _pairs(splits: Iterable[str]) -> Iterable[tuple[str, str]]:
    return combinations(splits, 2)


def _digests(data: Splits, split: str, texts: pa.Table) -> pa.Array:
    return texts.filter(pc.is_in(texts["doc_id"], data.relevant_ids(split)))["digest"].unique()


def _num_shared(one: pa.Array, other: pa.Array) -> int:
    return int(pc.sum(pc.is_in(one, other)).as_py() or 0)
