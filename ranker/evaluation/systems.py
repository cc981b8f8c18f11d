"""The systems of an evaluation: first stages, and every reranker at every depth on the same documents."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.config import EvaluateConfig, RayConfig
from ranker.evaluation.comparison import Comparison, Pair, compare_runs
from ranker.evaluation.lists import reordered, top_of, with_missed, with_tail
from ranker.evaluation.reranking import Scored, score_distributed
from ranker.evaluation.tasks import write_parquet, write_tasks
from ranker.measures import parse
from ranker.schemas import RUN, Collection
from ranker.scoring.rerank import interpolate
from ranker.session import connected

log = logging.getLogger(__name__)

MAIN = "reranked"
ALONE = "cross-encoder"


@dataclass(frozen=True)
class FirstStage:
    """A RUN of a first stage and the seconds that it took for all queries; None for a run that was given."""

    run: pa.Table
    seconds: float | None


@dataclass(frozen=True)
class Reranker:
    """One reranked system: which model, how deep, and what it took.

    Args:
        pairs_per_second: of all workers together. milliseconds: of single queries at this depth, scored alone.
    """

    system: str
    model: str
    depth: int
    pairs_per_second: float
    milliseconds: tuple[float, ...]

    def quantile(self, share: float) -> float | None:
        """Milliseconds that this share of the queries stayed below; None where none was timed."""
        return float(np.quantile(self.milliseconds, share)) if self.milliseconds else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        p50, p95 = self.quantile(0.5), self.quantile(0.95)
        return {
            "system": self.system,
            "model": self.model,
            "depth": self.depth,
            "pairs_per_second": round(self.pairs_per_second, 1),
            "p50_ms": None if p50 is None else round(p50, 1),
            "p95_ms": None if p95 is None else round(p95, 1),
            "timed_queries": len(self.milliseconds),
        }


@dataclass(frozen=True)
class Measured:
    """Everything that was found on one collection.

    Args:
        runs: system -> RUN, the main one last. first: those that retrieve. rerankers: the others with their speed.
        base: the first stage that was reranked. scored: of the main model.
    """

    collection: Collection
    relevance_level: int
    runs: dict[str, pa.Table]
    first: dict[str, FirstStage]
    base: str
    rerankers: tuple[Reranker, ...]
    scored: Scored
    comparison: Comparison

    def speed(self) -> dict[str, Any]:
        """What it took; milliseconds a query of a first stage are of one batch of all queries."""
        main = next(each for each in self.rerankers if each.system == MAIN)
        asked = max(1, self.collection.queries.num_rows)
        seconds = {name: stage.seconds for name, stage in self.first.items() if stage.seconds is not None}
        return {
            "pairs": len(self.scored.scores),
            "pairs_per_second": round(main.pairs_per_second, 1),
            "workers": self.scored.num_workers,
            "engine_busy": round(self.scored.busy, 3),
            "rerank_latency_ms": main.as_dict()["p50_ms"],
            "retrieval_ms_per_query": {name: round(1000 * took / asked, 2) for name, took in seconds.items()},
            "rerankers": [each.as_dict() for each in self.rerankers],
        }


def depths_of(settings: EvaluateConfig) -> tuple[int, ...]:
    """The depths that are reranked, the main one first."""
    return tuple(dict.fromkeys(settings.depth))


def retrieval_depth(depth: int, measures: Sequence[str]) -> int:
    """Documents a query that the first stage returns: enough for reranking and for the deepest measure."""
    cutoffs = [parse(measure).params.get("cutoff") for measure in measures]
    return max([depth, *(cutoff for cutoff in cutoffs if cutoff is not None)])


def labels_of(models: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """What each model is called: the main one MAIN, others after their folder, apart where folders are alike.

    Args:
        taken: names of other systems, which no model gets. Before an ``@`` stands a system's name, so none has one.
    """
    names, others = [MAIN], {ALONE, *taken}
    for number, model in enumerate(models[1:], 2):
        name = Path(model).name or model
        if name in ("model", "onnx") and Path(model).parent.name:
            name = f"{Path(model).parent.name}-{name}"
        name = name.replace("@", "-")
        while name in names or name in others:
            name = f"{name}-{number}"
        names.append(name)
    return names


def measure(
    collection: Collection,
    first: Mapping[str, Callable[[], FirstStage]],
    base: str,
    models: Sequence[str],
    settings: EvaluateConfig,
    work: Path,
    ray: RayConfig,
    seed: int,
) -> Measured:
    """Rerank, measure and test on one collection; what an interrupted call has left in ``work`` is not done again.

    Args:
        first: name -> gives the first stage; ``base`` is the one whose documents are reranked.
    """
    (work / "runs").mkdir(parents=True, exist_ok=True)
    level = settings.relevance_level or collection.relevance_level
    with connected(ray):
        stages = {name: give() for name, give in first.items()}
        labels = labels_of(models, stages)
        named = dict(zip(labels, models, strict=True))
        runs, rerankers, scored = _reranked(collection, stages[base].run, named, settings, work)
    runs = {**{name: stage.run for name, stage in stages.items()}, **runs}
    comparison = compare_runs(
        runs,
        collection.qrels,
        settings.measures,
        relevance_level=level,
        permutations=settings.significance_permutations,
        seed=seed,
        pairs=pairs_of(list(runs), base, labels),
        baseline=base,
        correction=settings.correction,
    )
    return Measured(collection, level, runs, stages, base, tuple(rerankers), scored, comparison)


def pairs_of(names: Sequence[str], base: str, models: Sequence[str]) -> list[Pair]:
    """What is tested: the main system against each other; further models against the first stage and one another."""
    further = [name for name in models if name != MAIN]
    pairs = [(name, MAIN) for name in names if name != MAIN]
    pairs += [(base, name) for name in further]
    return pairs + [(one, other) for row, one in enumerate(further) for other in further[row + 1 :]]


def _reranked(
    collection: Collection, first: pa.Table, models: Mapping[str, str], settings: EvaluateConfig, work: Path
) -> tuple[dict[str, pa.Table], list[Reranker], Scored]:
    depths = depths_of(settings)
    top = top_of(first, max(depths))
    if settings.rerank_missed_positives:
        level = settings.relevance_level or collection.relevance_level
        relevant = collection.qrels.filter(pc.greater_equal(collection.qrels["relevance"], level))
        top = with_missed(top, relevant, collection)
    # Missed positives lie below every depth; they are among the reranked at each.
    missed = settings.rerank_missed_positives
    kept = {depth: _within(top, first, depth) if missed else top["rank"].to_numpy() <= depth for depth in depths}
    runs: dict[str, pa.Table] = {}
    rerankers: list[Reranker] = []
    found: list[Scored] = []
    for number, (label, model) in enumerate(models.items()):
        for depth, part, scores, scored in _scored(model, f"model-{number}", top, kept, collection, settings, work):
            found.append(scored)
            system = label if depth == depths[0] else f"{label}@{depth}"
            for name, run in final_lists(part, scores, first, settings.scoring.interpolation, system).items():
                runs[name] = run
            speed = scored.pairs_per_second
            rerankers.append(Reranker(system, model, depth, speed, scored.latencies.get(depth, ())))
    if ALONE in runs:
        runs[ALONE] = runs.pop(ALONE)
    runs[MAIN] = runs.pop(MAIN)  # last: the one that the others are told against
    return runs, rerankers, found[0]


def _scored(
    model: str,
    name: str,
    top: pa.Table,
    kept: Mapping[int, NDArray[np.bool_]],
    collection: Collection,
    settings: EvaluateConfig,
    work: Path,
) -> Iterator[tuple[int, pa.Table, NDArray[np.float64], Scored]]:
    """(depth, its RUN, a score a row, what it took) of a model; all depths are read off one scoring where they can be.

    A cascade reads the best of the list in full that it is given, so that another depth is another scoring.
    """
    depths, lists = tuple(kept), work / "scoring"
    apart = settings.scoring.cascade_tokens is not None and len(depths) > 1
    groups: list[tuple[int, ...]] = [(depth,) for depth in depths] if apart else [depths]
    for group in groups:
        rows = kept[group[0]] if apart else np.ones(top.num_rows, dtype=bool)
        shown, folder = top.filter(pa.array(rows)), lists / f"depth-{group[0]}" if apart else lists
        scored = score_distributed(
            model,
            write_tasks(shown, collection, folder),
            folder / name,
            scoring=settings.scoring,
            num_workers=settings.num_workers,
            gpus_per_worker=settings.gpus_per_worker,
            depths=group,
            latency_queries=settings.latency_queries,
        )
        for depth in group:
            within = kept[depth][rows]
            yield depth, shown.filter(pa.array(within)), scored.scores[within], scored


def _within(top: pa.Table, first: pa.Table, depth: int) -> Any:
    """Rows of ``top`` that the first stage has within ``depth``, or does not have at all."""
    held = top_of(first, 2**31 - 1)
    keys = ["query_id", "doc_id"]
    rows = top.select(keys).append_column("row", pa.array(np.arange(top.num_rows)))
    found = rows.join(held.select([*keys, "rank"]), keys).sort_by("row")
    place = pc.fill_null(found["rank"], 0).to_numpy()
    return place <= depth


def final_lists(
    top: pa.Table, scores: np.ndarray, first: pa.Table, weight: float, system: str = MAIN
) -> dict[str, pa.Table]:
    """``system`` is what a user gets; where the first stage's score is mixed in, the main model alone as well."""
    alone = reordered(top, scores)
    if weight == 0.0:
        return {system: with_tail(alone, first)}
    mixed = {system: with_tail(interpolate(alone, top, weight), first)}
    return {ALONE: with_tail(alone, first), **mixed} if system == MAIN else mixed


def once(path: Path, make: Callable[[], pa.Table]) -> FirstStage:
    """What ``make`` returns, kept in ``path`` with its time; an interrupted call finds it there."""
    if not path.is_file():
        start = time.perf_counter()
        run = make().select(RUN.names)
        seconds = time.perf_counter() - start
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(run.replace_schema_metadata({"seconds": str(seconds)}), path)
        log.info("%s: %d queries in %.1f s", path.stem, len(pc.unique(run["query_id"])), seconds)
    table = pq.read_table(path)
    return FirstStage(table.replace_schema_metadata(None), float((table.schema.metadata or {})[b"seconds"]))
