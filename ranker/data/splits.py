"""A whole data set, all of its splits, before it is cut; and how missing splits and samples are drawn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.data.errors import DataError
from ranker.data.pairs import codes
from ranker.registry import nearest
from ranker.schemas import QRELS, QUERIES, SPLITS, Collection, Corpus, TableCorpus, require

HELD_OUT_SHARE = 0.1
# What others call the splits of this house, the most usual name first.
SYNONYMS = {"train": ("training",), "dev": ("validation", "valid", "val", "eval"), "test": ("testing",)}


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

    @property
    def names(self) -> list[str]:
        """Of the splits: those that have judgements or training triples."""
        return [
            *self.qrels,
            *(name for name, table in self.triples.items() if table.num_rows and name not in self.qrels),
        ]

    def collection(self, split: str) -> Collection:
        """One split: the whole corpus, the split's judged queries, their judgements, candidates and triples.

        Its queries are those that are judged or that a triple asks. Candidates and triples are None where there are
        none for this split.

        Raises:
            DataError: on a split that is not there, naming those that are.
        """
        if not self.names:
            raise DataError(
                f"{self.name}: no split {split!r}: it holds no judgements and no training triples; add qrels (in BEIR "
                f"layout qrels/{split}.tsv)"
            )
        if split not in self.names:
            raise DataError(f"{self.name}: no split {split!r}; {nearest(split, self.names)}")
        qrels, triples = self.qrels.get(split, QRELS.empty_table()), _unless_empty(self.triples.get(split))
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
            _unless_empty(run),
            triples=triples,
            relevance_level=self.relevance_levels.get(split, 1),
            reserved=self._reserved(split),
        )

    def relevant_ids(self, split: str) -> pa.Array:
        """doc_ids that are relevant to a query of the split."""
        table, level = self.qrels[split], self.relevance_levels.get(split, 1)
        return table.filter(pc.greater_equal(table["relevance"], level))["doc_id"].unique()

    def _reserved(self, split: str) -> pa.Array | None:
        """What training on ``split`` must not see; only for a train split."""
        others = [self.relevant_ids(name) for name in self.qrels if name != split]
        return pa.chunked_array(others, pa.string()).unique() if split == "train" and others else None


def _unless_empty(table: pa.Table | None) -> pa.Table | None:
    return table if table is not None and table.num_rows else None


def rename_splits(data: Splits, names: Mapping[str, str], required: Iterable[str] = ()) -> Splits:
    """``{"dev": "validation"}``: what this house calls dev is called validation there; other splits are dropped.

    Args:
        names: this house's name -> the source's. One that is this house's own stands for its SYNONYMS too, where
            the source lacks it.
        required: names of the source's that somebody chose: unless they are this house's own, they must be there.

    Raises:
        DataError: where a required name is missing, or all are.
    """
    chosen = set(required)
    wrong = [
        f"data.{ours}_split {theirs!r}: {data.name} has no such split; {nearest(theirs, data.names)}"
        for ours, theirs in names.items()
        if theirs in chosen and theirs != ours and theirs not in data.names
    ]
    if wrong:
        remedy = "leave dev_split or test_split out, or say null, to hold it out of train"
        raise DataError("\n  ".join([*wrong, remedy]))
    found = _found_there(data, names)
    if not found:
        raise DataError(
            f"{data.name}: has the splits {sorted(data.names) or 'none'}, and none of {sorted(names.values())}; "
            "name yours in data.train_split, data.dev_split and data.test_split"
        )
    return _renamed(data, found)


def _found_there(data: Splits, names: Mapping[str, str]) -> dict[str, str]:
    """``names`` of the splits that the source has; where one is this house's own, maybe by a synonym."""
    found = {}
    for ours, name in names.items():
        # A synonym that was named for another split is that one's.
        others = [each for each in SYNONYMS.get(ours, ()) if each not in names.values()] if name == ours else []
        theirs = next((each for each in (name, *others) if each in data.names), None)
        if theirs is not None:
            found[ours] = theirs
    return found


def with_house_names(data: Splits) -> Splits:
    """The same with train, dev and test called so, where they go by one of their SYNONYMS; other splits stay."""
    found = _found_there(data, {split: split for split in SPLITS})
    others = {name: name for name in data.names if name not in found.values()}
    return _renamed(data, {**found, **others})


def _renamed(data: Splits, names: Mapping[str, str]) -> Splits:
    qrels, triples, levels = (
        {ours: tables[theirs] for ours, theirs in names.items() if theirs in tables}
        for tables in (data.qrels, data.triples, data.relevance_levels)
    )
    return replace(data, qrels=qrels, triples=triples, relevance_levels=levels)


def hold_out_missing(data: Splits, seed: int) -> tuple[Splits, list[str]]:
    """The same with dev and test, each a seeded tenth of the train queries where the source has none.

    Returns also the names of the splits that were held out. Without judgements of train nothing is: a source that
    only has a test split is for measuring. Triples of held-out queries are dropped.

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
    level = data.relevance_levels.get("train", 1)
    cut = split_queries(train, shares, seed, relevance_level=level, queries=data.queries)
    levels = {**dict.fromkeys(missing, level), **data.relevance_levels}
    qrels = {**data.qrels, "train": cut.pop("rest"), **cut}
    triples = dict(data.triples)
    if "train" in triples:
        held_out = _asked_alike(data.queries, pa.concat_tables(cut.values())["query_id"])
        triples["train"] = triples["train"].filter(pc.invert(pc.is_in(triples["train"]["query_id"], held_out)))
    return replace(data, qrels=qrels, triples=triples, relevance_levels=levels), missing


def _asked_alike(queries: pa.Table, query_ids: pa.ChunkedArray) -> pa.Array:
    """These query_ids, and those of queries with the same text."""
    texts = folded(queries["text"])
    of_them = texts.filter(pc.is_in(queries["query_id"], query_ids.unique()))
    alike = queries["query_id"].filter(pc.is_in(texts, of_them.unique()))
    return pa.chunked_array([*query_ids.chunks, *alike.chunks], pa.string()).unique()


def folded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts in small letters, with one space for any white space: what asks the same is the same."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(texts), r"[\s\pZ]+", " "))


def split_queries(
    qrels: pa.Table,
    shares: Mapping[str, float],
    seed: int,
    *,
    relevance_level: int = 1,
    queries: pa.Table | None = None,
) -> dict[str, pa.Table]:
    """QRELS cut by query into ``shares`` and ``rest``, so that no document is relevant in two of them.

    Queries that share a relevant document or, in ``queries`` (QUERIES), their text whatever its case and white space,
    directly or through others, stay together: they are one component of the graph of queries, relevant documents and
    texts. Components are dealt in a seeded order, each to a split that it still fits into; one that is larger than
    every share goes to ``rest``.

    Raises:
        DataError: where so much hangs together that a split stays empty.
    """
    query_ids = sorted(qrels["query_id"].unique().to_pylist())
    components = _components(qrels, query_ids, relevance_level, queries)
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
            f"into two splits: {int(sizes.max())} queries hang together by the documents that answer them or by their "
            f"text, and "
            f"{' and '.join(empty)} would be empty; give the data set splits of its own"
        )
    return {name: qrels.filter(pc.is_in(qrels["query_id"], pa.array(ids, pa.string()))) for name, ids in found.items()}


def _components(
    qrels: pa.Table, query_ids: list[str], relevance_level: int, queries: pa.Table | None
) -> NDArray[np.int64]:
    """For each query the number of its connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = pa.array(query_ids, pa.string())
    relevant = qrels.filter(pc.greater_equal(qrels["relevance"], relevance_level))
    documents, size = codes(relevant["doc_id"])
    ends, others = [pc.index_in(relevant["query_id"], names).to_numpy()], [documents + len(query_ids)]
    size += len(query_ids)
    if queries is not None:
        asked = queries.filter(pc.is_in(queries["query_id"], names))
        texts, number = codes(folded(asked["text"]))
        ends.append(pc.index_in(asked["query_id"], names).to_numpy())
        others.append(texts + size)
        size += number
    edges = np.concatenate(ends), np.concatenate(others)
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(query_ids)]
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
