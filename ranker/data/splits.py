"""A whole data set, all of its splits, before it is cut; and how missing splits and samples are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.errors import DataError
from ranker.registry import nearest
from ranker.schemas import CORPUS, QRELS, QUERIES, Collection, require

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Splits:
    """Corpus, queries of all splits, and the judgements of each split.

    Args:
        name: of the data set. corpus: CORPUS. queries: QUERIES, those without judgement too.
        qrels: split name -> QRELS, in the source's own split names.
        run: candidates that the source itself gives, RUN; None when it gives none.
    """

    name: str
    corpus: pa.Table
    queries: pa.Table
    qrels: Mapping[str, pa.Table] = field(default_factory=dict)
    run: pa.Table | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpus", require(self.corpus, CORPUS, f"{self.name} corpus"))
        object.__setattr__(self, "queries", require(self.queries, QUERIES, f"{self.name} queries"))
        checked = {split: require(table, QRELS, f"{self.name} qrels {split}") for split, table in self.qrels.items()}
        object.__setattr__(self, "qrels", checked)

    def collection(self, split: str) -> Collection:
        """One split: the whole corpus, the split's judged queries and their judgements.

        Raises:
            DataError: on a split that is not there, naming those that are.
        """
        if split not in self.qrels:
            raise DataError(f"{self.name}: no split {split!r}; {nearest(split, list(self.qrels))}")
        qrels = self.qrels[split]
        judged = pc.unique(qrels["query_id"])
        queries = self.queries.filter(pc.is_in(self.queries["query_id"], judged))
        run = self.run.filter(pc.is_in(self.run["query_id"], judged)) if self.run is not None else None
        return Collection(self.name, split, self.corpus, queries, qrels, run)


def rename_splits(data: Splits, names: Mapping[str, str]) -> Splits:
    """``{"dev": "validation"}``: what this house calls dev is called validation there; other splits are dropped.

    Raises:
        DataError: when the source has none of them.
    """
    found = {ours: data.qrels[theirs] for ours, theirs in names.items() if theirs in data.qrels}
    if not found:
        raise DataError(
            f"{data.name}: has the splits {sorted(data.qrels) or 'none'}, and none of {sorted(names.values())}; "
            "name yours in data.train_split, data.dev_split and data.test_split"
        )
    return replace(data, qrels=found)


def hold_out_missing(data: Splits, seed: int) -> tuple[Splits, list[str]]:
    """The same with dev and test, each a seeded tenth of the train queries where the source has none.

    Returns also the names of the splits that were held out. Without a train split nothing is: a source that
    only has a test split is for measuring.
    """
    missing = [split for split in ("dev", "test") if split not in data.qrels]
    if "train" not in data.qrels or not missing:
        return data, []
    train = data.qrels["train"]
    query_ids = sorted(set(train["query_id"].to_pylist()))
    if len(query_ids) < 1 + len(missing):
        return data, []
    order = [query_ids[i] for i in np.random.default_rng(seed).permutation(len(query_ids))]
    size = max(1, round(HELD_OUT_SHARE * len(query_ids)))
    qrels = dict(data.qrels)
    for position, split in enumerate(missing):
        chosen = pa.array(order[position * size : (position + 1) * size], pa.string())
        qrels[split] = train.filter(pc.is_in(train["query_id"], chosen))
    held = pa.array(order[: len(missing) * size], pa.string())
    qrels["train"] = train.filter(pc.invert(pc.is_in(train["query_id"], held)))
    return replace(data, qrels=qrels), missing


def sample_splits(
    data: Splits, max_documents: int | None = None, max_queries: int | None = None, seed: int = 0
) -> Splits:
    """A seeded sample: ``max_queries`` a split, every document judged for them, and random others.

    Judged documents are never dropped, so a corpus may be larger than ``max_documents`` when they alone are
    more. None: all. The order of the source is kept.
    """
    rng = np.random.default_rng(seed)
    qrels = {split: _sample_queries(table, max_queries, rng) for split, table in data.qrels.items()}
    queries, corpus = data.queries, data.corpus
    if max_queries is not None:
        kept = pa.array(sorted({q for table in qrels.values() for q in table["query_id"].to_pylist()}), pa.string())
        queries = queries.filter(pc.is_in(queries["query_id"], kept))
    if max_documents is not None and corpus.num_rows > max_documents:
        judged_ids = pa.array(sorted({d for table in qrels.values() for d in table["doc_id"].to_pylist()}), pa.string())
        judged = pc.is_in(corpus["doc_id"], judged_ids).to_numpy(zero_copy_only=False)
        others = np.flatnonzero(~judged)
        fill = max(0, max_documents - int(judged.sum()))
        keep = np.sort(np.concatenate([np.flatnonzero(judged), rng.permutation(others)[:fill]]))
        corpus = corpus.take(pa.array(keep))
    return replace(data, corpus=corpus, queries=queries, qrels=qrels)


def _sample_queries(qrels: pa.Table, max_queries: int | None, rng: np.random.Generator) -> pa.Table:
    query_ids = sorted(set(qrels["query_id"].to_pylist()))
    if max_queries is None or len(query_ids) <= max_queries:
        return qrels
    chosen = pa.array([query_ids[i] for i in rng.permutation(len(query_ids))[:max_queries]], pa.string())
    return qrels.filter(pc.is_in(qrels["query_id"], chosen))
