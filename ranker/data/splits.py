"""A whole data set, all of its splits, before it is cut; and how missing splits and samples are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.data.errors import DataError
from ranker.registry import nearest
from ranker.schemas import QRELS, QUERIES, Collection, Corpus, TableCorpus, require

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Splits:
    """Corpus, queries of all splits, and the judgements of each split.

    Args:
        name: of the data set. corpus: the documents (CORPUS in memory is taken too).
        queries: QUERIES, those without judgement too.
        qrels: split name -> QRELS, in the source's own split names.
        run: candidates that the source itself gives, RUN of the queries of all splits; None when it gives none.
        triples: split name -> ID_TRIPLES, training triples that the source itself gives.
        relevance_levels: split name -> judgements from this number on count as relevant; 1 where it is not named.
    """

    name: str
    corpus: Corpus
    queries: pa.Table
    qrels: Mapping[str, pa.Table] = field(default_factory=dict)
    run: pa.Table | None = None
    triples: Mapping[str, pa.Table] = field(default_factory=dict)
    relevance_levels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.corpus, pa.Table):
            object.__setattr__(self, "corpus", TableCorpus(self.corpus, f"{self.name} corpus"))
        object.__setattr__(self, "queries", require(self.queries, QUERIES, f"{self.name} queries"))
        checked = {split: require(table, QRELS, f"{self.name} qrels {split}") for split, table in self.qrels.items()}
        object.__setattr__(self, "qrels", checked)

    def collection(self, split: str) -> Collection:
        """One split: the whole corpus, the split's judged queries, their judgements, candidates and triples.

        Raises:
            DataError: on a split that is not there, naming those that are.
        """
        if split not in self.qrels:
            raise DataError(f"{self.name}: no split {split!r}; {nearest(split, list(self.qrels))}")
        qrels, triples = self.qrels[split], self.triples.get(split)
        asked = qrels["query_id"].unique()
        if triples is not None:
            asked = pa.concat_arrays([asked, triples["query_id"].unique()]).unique()
        queries = self.queries.filter(pc.is_in(self.queries["query_id"], asked))
        run = self.run.filter(pc.is_in(self.run["query_id"], asked)) if self.run is not None else None
        return Collection(
            self.name,
            split,
            self.corpus,
            queries,
            qrels,
            run,
            triples=triples,
            relevance_level=self.relevance_levels.get(split, 1),
            reserved=self._reserved(split),
        )

    def _reserved(self, split: str) -> pa.Array | None:
        """What training on ``split`` must not see; only for a train split."""
        others = [
            table.filter(pc.greater_equal(table["relevance"], self.relevance_levels.get(name, 1)))["doc_id"]
            for name, table in self.qrels.items()
            if name != split
        ]
        if split != "train" or not others:
            return None
        return pa.chunked_array([chunk for column in others for chunk in column.chunks], pa.string()).unique()


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
    triples = {ours: data.triples[theirs] for ours, theirs in names.items() if theirs in data.triples}
    levels = {ours: data.relevance_levels[theirs] for ours, theirs in names.items() if theirs in data.relevance_levels}
    return replace(data, qrels=found, triples=triples, relevance_levels=levels)


def hold_out_missing(data: Splits, seed: int) -> tuple[Splits, list[str]]:
    """The same with dev and test, each a seeded tenth of the train queries where the source has none.

    Returns also the names of the splits that were held out. Without a train split nothing is: a source that
    only has a test split is for measuring.

    Raises:
        DataError: as :func:`split_queries` does.
    """
    missing = [split for split in ("dev", "test") if split not in data.qrels]
    if "train" not in data.qrels or not missing:
        return data, []
    train = data.qrels["train"]
    if len(train["query_id"].unique()) < 1 + len(missing):
        return data, []
    shares = dict.fromkeys(missing, HELD_OUT_SHARE)
    cut = split_queries(train, shares, seed, relevance_level=data.relevance_levels.get("train", 1))
    levels = {**dict.fromkeys(missing, data.relevance_levels.get("train", 1)), **data.relevance_levels}
    qrels = {**data.qrels, "train": cut.pop("rest"), **cut}
    kept = pc.unique(qrels["train"]["query_id"])
    triples = {
        split: table.filter(pc.is_in(table["query_id"], kept)) if split == "train" else table
        for split, table in data.triples.items()
    }
    return replace(data, qrels=qrels, triples=triples, relevance_levels=levels), missing


def split_queries(
    qrels: pa.Table, shares: Mapping[str, float], seed: int, *, relevance_level: int = 1
) -> dict[str, pa.Table]:
    """QRELS cut by query into ``shares`` and ``rest``, so that no document is relevant in two of them.

    Queries that share a relevant document, directly or through others, stay together (they are one component of the
    graph of queries and relevant documents). Components are dealt in a seeded order, each to a split that it still
    fits into; one that is larger than every share goes to ``rest``.

    Raises:
        DataError: where so much hangs together that a split stays empty.
    """
    query_ids = sorted(qrels["query_id"].unique().to_pylist())
    components = _components(qrels, query_ids, relevance_level)
    sizes = np.bincount(components, minlength=1)
    room = {name: max(1, round(share * len(query_ids))) for name, share in shares.items()}
    home: dict[int, str] = {}
    for component in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        size = int(sizes[component])
        name = next((name for name, left in room.items() if size <= left), "rest")
        home[component] = name
        if name in room:
            room[name] -= size
    found: dict[str, list[str]] = {name: [] for name in (*shares, "rest")}
    for query_id, component in zip(query_ids, components.tolist(), strict=True):
        found[home[component]].append(query_id)
    if empty := [name for name, ids in found.items() if not ids]:
        raise DataError(
            f"cannot hold out {' and '.join(shares)} of {len(query_ids)} queries without letting a relevant document "
            f"into two splits: {int(sizes.max())} queries hang together by the documents that answer them, and "
            f"{' and '.join(empty)} would be empty; give the data set splits of its own"
        )
    return {name: qrels.filter(pc.is_in(qrels["query_id"], pa.array(ids, pa.string()))) for name, ids in found.items()}


def _components(qrels: pa.Table, query_ids: list[str], relevance_level: int) -> NDArray[np.int64]:
    """For each query the number of its connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    relevant = qrels.filter(pc.greater_equal(qrels["relevance"], relevance_level))
    queries = pc.index_in(relevant["query_id"], pa.array(query_ids, pa.string())).to_numpy()
    documents = relevant["doc_id"].combine_chunks().dictionary_encode().indices.to_numpy() + len(query_ids)
    size = int(documents.max(initial=len(query_ids) - 1)) + 1
    graph = coo_array((np.ones(len(queries), dtype=np.int8), (queries, documents)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(query_ids)]
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
