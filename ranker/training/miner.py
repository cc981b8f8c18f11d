"""Hard negatives for texts that are in memory: the stages `index` and `mine` in a folder that is removed afterwards."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from ranker.config import Experiment, RayConfig
from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.stored import save_collection
from ranker.manifest import fingerprint, run_stage
from ranker.schemas import CORPUS, QRELS, QUERIES, Collection, require
from ranker.session import connected

Texts: TypeAlias = Sequence[str] | Mapping[str, str]
Positives: TypeAlias = Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str]]
Judgements: TypeAlias = pa.Table | Mapping[str, Mapping[str, int]]
Mined = list[dict[str, Any]]


class HardNegativeMiner:
    """Finds the documents that a bi-encoder takes for answers and that are none.

    Args:
        bi_encoder_model: model folder, hub id, or the bundled one.
        max_length: longest text in tokens. None: what the model says.
        batch_size: texts a batch. seed: of everything that is drawn.
        num_workers: encoder actors. None: 2.
        ray: which cluster; None: RAY_ADDRESS when set, else a local one for the time of the call.
        filters: fields of :class:`ranker.config.MineConfig`, such as ``relative_margin=0.05``, ``range_min=5``,
            ``random_ratio=0.2``, ``num_candidates=100``.

    Raises:
        ranker.config.ConfigError: naming every filter that does not exist or cannot be.
    """

    def __init__(
        self,
        bi_encoder_model: str = "sentence-transformers/all-MiniLM-L6-v2",
        *,
        max_length: int | None = 256,
        batch_size: int = 64,
        seed: int = 13,
        num_workers: int | None = None,
        ray: RayConfig | None = None,
        **filters: Any,
    ) -> None:
        options: dict[str, Any] = {
            "index.model": str(bi_encoder_model),
            "index.max_length": max_length,
            "index.batch_size": batch_size,
            "seed": seed,
            "mine.num_dev_queries": 0,
            **{f"mine.{name}": value for name, value in filters.items()},
        }
        if num_workers is not None:
            options["index.num_workers"] = num_workers
        self.config = Experiment(ray=ray or RayConfig()).with_overrides(options)

    def mine(
        self,
        queries: Texts,
        documents: Texts,
        top_k: int = 10,
        *,
        positives: Positives | None = None,
        qrels: Judgements | None = None,
    ) -> Mined:
        """For each query, in order, ``{"query_id", "query", "positives", "negatives", "doc_ids", "scores"}``.

        ``negatives`` are at most ``top_k`` texts, hardest first; ``doc_ids`` and ``scores`` (cosine, NaN for a random
        one) belong to them, and ``teacher_scores`` (logits) where there is a teacher. ``positives`` are the texts that
        were left out.

        Args:
            queries, documents: texts, or id -> text. A list's ids are "0", "1", ...
            top_k: negatives a query.
            positives: right answers: for each query one or several texts, in order or by query id. Those that
                are not among the documents are added to them.
            qrels: the same as judgements: QRELS, or query id -> doc id -> relevance.
                Without either, nothing can be known to be a right answer: the nearest document itself is mined.

        Raises:
            ranker.data.DataError: on texts, ids or positives that do not fit together.
        """
        query_texts, corpus_texts = _by_id(queries, "queries"), _by_id(documents, "documents")
        relevant = _relevant(query_texts, corpus_texts, positives, qrels)
        config = self.config.with_overrides({"mine.num_negatives": top_k})
        with tempfile.TemporaryDirectory(prefix="ranker-mine-") as folder, connected(config.ray):
            return _walk(config.with_overrides({"output_dir": folder}), query_texts, corpus_texts, relevant)


def _walk(
    config: Experiment,
    queries: dict[str, str],
    documents: dict[str, str],
    relevant: dict[str, dict[str, int]],
) -> Mined:
    """Store the texts as a collection, build the index through its door, and mine as its door does."""
    from ranker.retrieval.index import build_index
    from ranker.training.choosing import ask_for_the_rest, choose

    corpus = pa.table([list(documents), [""] * len(documents), list(documents.values())], schema=CORPUS)
    table = pa.table([list(queries), list(queries.values())], schema=QUERIES)
    judged = [(q, d, r) for q, row in relevant.items() for d, r in row.items()]
    qrels = pa.table([list(column) for column in zip(*judged, strict=True)] or [[], [], []], schema=QRELS)

    def store(work: Path) -> dict[str, Any]:
        save_collection(work, corpus, table, {"train": qrels})
        return {"documents": len(documents), "queries": len(queries)}

    run_stage("data", config.folder("data"), {}, {"texts": fingerprint([queries, documents, relevant])}, store)
    index, work = build_index(config).folder, Path(config.output_dir) / "work"
    work.mkdir()
    chosen = choose(Collection("in memory", "train", corpus, table, qrels), index, config, work)
    taught = ask_for_the_rest(Collection("in memory", "train", corpus, table, qrels), chosen, config, work)
    doc_ids = list(documents)
    return [
        {
            "query_id": query_id,
            "query": text,
            "positives": [documents[doc_ids[key]] for key in chosen.positives(row)],
            "negatives": [documents[doc_ids[key]] for key in choice.negatives],
            "doc_ids": [doc_ids[key] for key in choice.negatives],
            "scores": choice.similarities,
            **({"teacher_scores": [choice.logits[key] for key in choice.negatives]} if taught else {}),
        }
        for row, ((query_id, text), choice) in enumerate(zip(queries.items(), chosen.choices, strict=True))
    ]


def _by_id(texts: Any, what: str) -> dict[str, str]:
    """Texts by id; the ids of a list are its positions."""
    if isinstance(texts, str) or not isinstance(texts, Sequence | Mapping):
        raise DataError(f"{what} are a {type(texts).__name__}; give a list of strings or a dict id -> text")
    found = dict(texts.items() if isinstance(texts, Mapping) else ((str(i), text) for i, text in enumerate(texts)))
    mistakes = Mistakes(what)
    for identifier, text in found.items():
        if not isinstance(identifier, str) or not isinstance(text, str):
            mistakes.add(f"{what}[{identifier!r}]", f"{shown(text)}: ids and texts must be strings")
    mistakes.raise_if_any()
    if not found:
        raise DataError(f"no {what}; give at least one text")
    return found


def _relevant(
    queries: dict[str, str], documents: dict[str, str], positives: Positives | None, qrels: Judgements | None
) -> dict[str, dict[str, int]]:
    """Relevance by query id and doc id; positives that are not among ``documents`` are added to them."""
    found = _judged(queries, documents, qrels)
    by_text: dict[str, str] = {}
    for doc_id, text in documents.items():
        by_text.setdefault(text, doc_id)
    mistakes = Mistakes("positives")
    for query_id, answers in _answers(queries, positives).items():
        for text in _texts_of(query_id, answers, mistakes):
            if text not in by_text:
                by_text[text] = _free_id(documents)
                documents[by_text[text]] = text
            found.setdefault(query_id, {})[by_text[text]] = 1
    mistakes.raise_if_any()
    return found


def _texts_of(query_id: str, answers: Any, mistakes: Mistakes) -> list[str]:
    texts = [answers] if isinstance(answers, str) or not isinstance(answers, Sequence) else list(answers)
    wrong = [text for text in texts if not isinstance(text, str)]
    for value in wrong[:1]:
        mistakes.add(f"positives of query {query_id!r}", f"{shown(value)}: must be a text or a list of texts")
    return [] if wrong else texts


def _answers(queries: dict[str, str], positives: Positives | None) -> dict[str, str | Sequence[str]]:
    if positives is None:
        return {}
    if isinstance(positives, Mapping):
        unknown = [query_id for query_id in positives if query_id not in queries]
        if unknown:
            raise DataError(
                f"positives of {len(unknown)} unknown queries: {shown(unknown[:5])}; use the ids of queries"
            )
        return dict(positives)
    if isinstance(positives, str) or len(positives) != len(queries):
        raise DataError(f"{len(positives)} positives for {len(queries)} queries; give one or a list of texts for each")
    return dict(zip(queries, positives, strict=True))


def _judged(queries: dict[str, str], documents: dict[str, str], qrels: Judgements | None) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    if isinstance(qrels, pa.Table):
        for row in require(qrels, QRELS, "qrels").to_pylist():
            found.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    elif qrels is not None:
        found = {query_id: dict(row) for query_id, row in qrels.items()}
    mistakes = Mistakes("qrels")
    for query_id, row in found.items():
        unknown = [] if query_id in queries else [f"query {query_id!r}"]
        unknown += [f"document {doc_id!r}" for doc_id in row if doc_id not in documents]
        for name in unknown:
            mistakes.add(f"query {query_id!r}", f"{name} is not there; the ids of a list are '0', '1', ...")
    mistakes.raise_if_any()
    return found


def _free_id(documents: dict[str, str]) -> str:
    number = len(documents)
    while f"positive-{number}" in documents:
        number += 1
    return f"positive-{number}"
