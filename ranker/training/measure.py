"""The model in training measured on dev queries: its candidates scored by all workers, then ir-measures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from ranker.measures import evaluate_run
from ranker.schemas import GROUPS, QRELS, RUN, read_table
from ranker.scoring.pairs import encode_pairs

PAIRS_PER_PASS = 32
DEV_GROUPS, DEV_QRELS = "dev_groups.parquet", "dev_qrels.parquet"
DEV_SCHEMA = GROUPS.append(pa.field("doc_ids", pa.list_(pa.string())))

# columns, rows -> scores of these rows
Scorer = Callable[[Mapping[str, Sequence[Sequence[int]]], np.ndarray], np.ndarray]
# scores of this worker's rows, 0 elsewhere -> the sum over all workers
Sum = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class DevSet:
    """Candidates of the dev queries in the retriever's order, tokenised once.

    Args:
        run: RUN with the retriever's order as score. qrels: QRELS. columns: token ids of each row of ``run``.
        lengths: (rows,) tokens. relevance_level: from which judgement on a document counts as relevant.
    """

    run: pa.Table
    qrels: pa.Table
    columns: dict[str, list[list[int]]]
    lengths: np.ndarray
    relevance_level: int = 1


def has_dev(folder: Path) -> bool:
    """Whether a folder of groups also holds what a measurement needs: dev queries with candidates."""
    whole = (folder / DEV_GROUPS).is_file() and (folder / DEV_QRELS).is_file()
    return whole and pq.read_metadata(folder / DEV_GROUPS).num_rows > 0


def load_dev(folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> DevSet:
    """The dev set beside the groups.

    Raises:
        FileNotFoundError, SchemaError: where a table is missing or of another type.
    """
    groups = read_table(folder / DEV_GROUPS, DEV_SCHEMA).to_pylist()
    rows = [
        (group["query_id"], doc_id, -float(rank), rank)
        for group in groups
        for rank, doc_id in enumerate(group["doc_ids"], start=1)
    ]
    run = pa.table(
        [pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), RUN.types, strict=True)], schema=RUN
    )
    pairs = [(group["query"], document) for group in groups for document in group["documents"]]
    columns = dict(encode_pairs(tokenizer, pairs, max_length))
    lengths = np.array([len(ids) for ids in columns["input_ids"]], dtype=np.int64)
    qrels = folder / DEV_QRELS
    level = int((pq.read_schema(qrels).metadata or {}).get(b"relevance_level", 1))
    return DevSet(run, read_table(qrels, QRELS), columns, lengths, level)


def passes(lengths: np.ndarray, rank: int, num_workers: int) -> list[np.ndarray]:
    """Rows of each forward pass of one worker, pairs of like length together.

    Every worker gets equally many passes (the first is repeated where they do not come out even), as ZeRO-3 needs.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = [order[start : start + PAIRS_PER_PASS] for start in range(0, len(order), PAIRS_PER_PASS)]
    while len(batches) % num_workers:
        batches.append(batches[0])
    return batches[rank::num_workers]


def measure(dev: DevSet, score: Scorer, add: Sum, rank: int, num_workers: int) -> dict[str, float]:
    """Mean ``ndcg@10``, ``mrr@10``, ``map`` and ``hit_rate@10`` of the dev candidates in the model's order.

    Args:
        dev: the set. score: of some rows. add: over workers. rank, num_workers: this worker's place.
    """
    sums, counts = np.zeros(len(dev.lengths)), np.zeros(len(dev.lengths))
    for rows in passes(dev.lengths, rank, num_workers):
        sums[rows] += score(dev.columns, rows)
        counts[rows] += 1
    scores = add(sums) / add(counts)
    run = dev.run.set_column(2, "score", pa.array(scores, pa.float64()))
    return evaluate_run(run, dev.qrels, relevance_level=dev.relevance_level).means


def retriever_measures(dev: DevSet) -> dict[str, float]:
    """The same of the order in which the retriever gave them: what there is to beat."""
    return evaluate_run(dev.run, dev.qrels, relevance_level=dev.relevance_level).means


def selected(measures: Mapping[str, float], metric: str) -> float:
    """The number that says which weights are best: the mean of ``metric`` over the dev sets.

    Args:
        measures: those of the training set's dev queries by name, those of a mix as ``mix1/ndcg@10``.
    """
    return float(np.mean([value for name, value in measures.items() if name.rpartition("/")[2] == metric]))


def named(name: str, measures: Mapping[str, float]) -> dict[str, float]:
    """Measures of the dev set ``name`` as they stand in logs and reports."""
    return {f"{name}/{measure}" if name else measure: value for measure, value in measures.items()}
