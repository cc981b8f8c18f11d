"""Rerank a run on several Ray actors, shard by shard; finished shards are kept and never scored twice."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import ScoringConfig
from ranker.manifest import write_json
from ranker.schemas import RUN, Collection, require

log = logging.getLogger(__name__)

PAIRS_PER_SHARD = 512
# Seconds between progress lines.
PROGRESS_EVERY = 3.0
LATENCIES = "latencies.json"
# Queries scored one by one to say what one answer takes.
LATENCY_QUERIES = 8


@dataclass(frozen=True)
class Shard:
    """Some whole queries of a run with the texts of their candidates: all that an actor needs."""

    number: int
    run: pa.Table
    queries: pa.Table
    texts: dict[str, str]

    @property
    def file_name(self) -> str:
        """Where its result is kept."""
        return f"part-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Reranked:
    """The whole RUN and what it took.

    Args:
        num_pairs: scored query-document pairs. seconds: actor time, summed over shards and interruptions.
        num_workers: actors that shared it. latencies: milliseconds of single queries, scored alone.
    """

    run: pa.Table
    num_pairs: int
    seconds: float
    num_workers: int
    latencies: tuple[float, ...]

    @property
    def pairs_per_second(self) -> float:
        """Of all actors together."""
        return self.num_pairs / self.seconds * self.num_workers if self.seconds else 0.0


class RerankActor:
    """One loaded scorer. A plain class: :func:`rerank_distributed` makes actors of it."""

    def __init__(self, model: str, scoring: ScoringConfig, num_threads: int) -> None:
        import torch

        from ranker.scoring.scorer import load_scorer

        torch.set_num_threads(num_threads)
        self._scoring = scoring
        self._scorer = load_scorer(model, scoring)

    def rerank(self, shard: Shard, depth: int) -> tuple[Shard, pa.Table, float]:
        """The shard, its reranked RUN, and the seconds that it took."""
        from ranker.scoring.rerank import rerank_run

        start = time.perf_counter()
        run = rerank_run(
            self._scorer, shard.run, shard.queries, shard.texts, depth, interpolation=self._scoring.interpolation
        )
        return shard, require(run, RUN, "reranked run").select(RUN.names), time.perf_counter() - start

    def latencies(self, shard: Shard, depth: int, num_queries: int) -> tuple[float, ...]:
        """Milliseconds to rerank single queries, one after another."""
        singles = [one_query(shard, query_id) for query_id in shard.queries["query_id"].to_pylist()[:num_queries]]
        return tuple(self.rerank(single, depth)[2] * 1000 for single in singles)


def one_query(shard: Shard, query_id: str) -> Shard:
    """The part of a shard that belongs to one query."""
    return Shard(
        shard.number,
        shard.run.filter(pc.equal(shard.run["query_id"], query_id)),
        shard.queries.filter(pc.equal(shard.queries["query_id"], query_id)),
        shard.texts,
    )


def top_of(run: pa.Table, depth: int) -> pa.Table:
    """The best ``depth`` rows of each query of RUN, by query_id and rank; ranks count from 1 whatever they were."""
    frame = require(run, RUN, "run").select(RUN.names).to_pandas().sort_values(["query_id", "rank", "doc_id"])
    frame["rank"] = (frame.groupby("query_id", sort=False).cumcount() + 1).astype("int32")
    return pa.Table.from_pandas(frame[frame["rank"] <= depth], schema=RUN, preserve_index=False)


def with_tail(reranked: pa.Table, first: pa.Table) -> pa.Table:
    """The reranked RUN with what it lacks of ``first`` below it, in ``first``'s order: nothing is lost by reranking.

    Scores of the tail fall by 1 a rank from the lowest reranked one.
    """
    top = reranked.to_pandas()
    known = pd.MultiIndex.from_frame(top[["query_id", "doc_id"]])
    rest = first.select(RUN.names).to_pandas().sort_values(["query_id", "rank"])
    rest = rest[~pd.MultiIndex.from_frame(rest[["query_id", "doc_id"]]).isin(known)].copy()
    if not len(rest):
        return reranked
    step = rest.groupby("query_id", sort=False).cumcount() + 1
    lowest, size = top.groupby("query_id")["score"].min(), top.groupby("query_id").size()
    rest["score"] = rest["query_id"].map(lowest).fillna(0.0) - step
    rest["rank"] = (rest["query_id"].map(size).fillna(0) + step).astype("int32")
    whole = pd.concat([top, rest]).sort_values(["query_id", "rank"])
    return pa.Table.from_pandas(whole, schema=RUN, preserve_index=False)


def cut_shards(run: pa.Table, collection: Collection, pairs_per_shard: int = PAIRS_PER_SHARD) -> Iterator[Shard]:
    """Whole queries of RUN in shards of about ``pairs_per_shard`` rows, in order of query_id.

    The cut depends on the run only, so that another number of workers resumes the same shards.
    """
    run = require(run, RUN, "run").sort_by([("query_id", "ascending"), ("rank", "ascending")])
    number, waiting, rows = 0, list[str](), 0
    counts = run.group_by("query_id", use_threads=False).aggregate([([], "count_all")])
    for query_id, count in zip(counts["query_id"].to_pylist(), counts["count_all"].to_pylist(), strict=True):
        waiting.append(query_id)
        rows += count
        if rows >= pairs_per_shard:
            yield _shard(number, waiting, run, collection)
            number, waiting, rows = number + 1, [], 0
    if waiting:
        yield _shard(number, waiting, run, collection)


def _shard(number: int, query_ids: list[str], run: pa.Table, collection: Collection) -> Shard:
    wanted = pa.array(query_ids, pa.string())
    part = run.filter(pc.is_in(run["query_id"], wanted))
    queries = collection.queries.filter(pc.is_in(collection.queries["query_id"], wanted))
    return Shard(number, part, queries, texts_of(part, collection))


def texts_of(run: pa.Table, collection: Collection) -> dict[str, str]:
    """doc_id -> text of the documents of RUN only: a corpus may be larger than memory as Python strings."""
    return collection.texts(run["doc_id"])


def share_cores(num_workers: int, node_cores: Sequence[float]) -> tuple[int, int]:
    """(actors, whole cores an actor): at most ``num_workers`` actors that all fit on the nodes at once.

    Raises:
        ValueError: when no node has a whole core.
    """
    whole = [int(cores) for cores in node_cores]
    workers = min(num_workers, sum(whole))
    if workers < 1:
        raise ValueError(f"no node of the cluster has a whole core for a scoring actor; nodes: {list(node_cores)}")
    cores = sum(whole) // workers
    while sum(node // cores for node in whole) < workers:
        cores -= 1
    return workers, cores


def rerank_distributed(
    model: str,
    run: pa.Table,
    collection: Collection,
    depth: int,
    *,
    scoring: ScoringConfig,
    folder: Path,
    num_workers: int = 2,
    gpus_per_worker: float = 0.0,
) -> Reranked:
    """The top ``depth`` of RUN reranked on the connected Ray cluster; shards found in ``folder`` are reused.

    Every result is written to a temporary name and renamed, so an interrupted call loses only running shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    top = top_of(run, depth)
    shards = list(cut_shards(top, collection.in_memory(top["doc_id"])))
    missing = [shard for shard in shards if not (folder / shard.file_name).is_file()]
    if not shards:
        return Reranked(RUN.empty_table(), 0, 0.0, 0, ())
    if missing or not (folder / LATENCIES).is_file():
        _run_shards(model, missing, shards[0], depth, scoring, folder, num_workers, gpus_per_worker)
    speed = json.loads((folder / LATENCIES).read_text("utf-8"))
    tables = [pq.read_table(folder / shard.file_name) for shard in shards]
    seconds = sum(float((table.schema.metadata or {})[b"seconds"]) for table in tables)
    whole = pa.concat_tables([RUN.empty_table(), *(table.replace_schema_metadata(None) for table in tables)])
    num_pairs = sum(shard.run.num_rows for shard in shards)
    return Reranked(whole, num_pairs, seconds, speed["num_workers"], tuple(speed["milliseconds"]))


def _run_shards(
    model: str,
    missing: list[Shard],
    sample: Shard,
    depth: int,
    scoring: ScoringConfig,
    folder: Path,
    num_workers: int,
    gpus_per_worker: float,
) -> None:
    import ray
    from ray.util import ActorPool

    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    workers, cores = share_cores(num_workers, nodes)
    # A worker that dies (out of memory, lost node) starts again twice, and its shard with it.
    options: dict[str, Any] = {"max_restarts": 2, "max_task_retries": 2, "num_gpus": gpus_per_worker}
    remote: Any = ray.remote(num_cpus=cores, **options)(RerankActor)
    workers = max(1, min(workers, len(missing)))
    log.info("reranking with %d actors of %d cores; %d shards to do", workers, cores, len(missing))
    actors = [remote.remote(model, scoring, cores) for _ in range(workers)]
    try:
        pool = ActorPool(actors)
        done = pool.map_unordered(lambda actor, shard: actor.rerank.remote(shard, depth), missing)
        _keep(done, folder, sum(shard.run.num_rows for shard in missing))
        latencies = ray.get(actors[0].latencies.remote(sample, depth, LATENCY_QUERIES))
        write_json(folder / LATENCIES, {"num_workers": workers, "milliseconds": latencies})
    finally:
        for actor in actors:
            ray.kill(actor)


def _keep(done: Iterator[tuple[Shard, pa.Table, float]], folder: Path, num_pairs: int) -> None:
    start = said = time.monotonic()
    scored = 0
    for shard, run, seconds in done:
        write_parquet(run.replace_schema_metadata({"seconds": str(seconds)}), folder / shard.file_name)
        scored += shard.run.num_rows
        now = time.monotonic()
        if now - said >= PROGRESS_EVERY or scored == num_pairs:
            said = now
            log.info("%s", progress_line(scored, num_pairs, now - start))


def progress_line(scored: int, num_pairs: int, seconds: float) -> str:
    """``reranked 512 of 3,000 pairs, 128 pairs/s, 0:19 left``."""
    rate = scored / max(seconds, 1e-9)
    minutes, rest = divmod(round((num_pairs - scored) / max(rate, 1e-9)), 60)
    return f"reranked {scored:,} of {num_pairs:,} pairs, {rate:.0f} pairs/s, {minutes}:{rest:02d} left"


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table to a temporary name and rename it: a file is whole or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)
