"""The last word of a sweep: the best and the experiment as it stands, each with several seeds, on dev and on test.

Test is touched here, once, after dev has decided.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import Experiment
from ranker.data.stored import stored_splits
from ranker.manifest import MANIFEST, write_text
from ranker.tuning.bench import Bench, in_slot
from ranker.tuning.mined import MINED, mine_once
from ranker.tuning.noise import Gain, compare_seeds
from ranker.tuning.recipe import Recipe, make_model, mines, trial_config
from ranker.tuning.records import LOG, MODEL, ended_of
from ranker.tuning.trial import LOSSES, PASSING

log = logging.getLogger(__name__)

DEFAULT, BEST = "default", "best"
REPEATS, TEST, SPLIT, FAILED = "repeats", "test", "test", "error.txt"


@dataclass(frozen=True)
class Repeat:
    """One training with one seed.

    Args:
        who: DEFAULT or BEST. dev, test: the measure that decides; None where it was not measured.
        per_query: query_id -> the measure on test. error: why there is none.
    """

    who: str
    seed: int
    dev: float | None = None
    test: float | None = None
    per_query: Mapping[str, float] | None = None
    error: str | None = None

    def plain(self) -> dict[str, Any]:
        """Without the queries, as JSON keeps it."""
        return {"who": self.who, "seed": self.seed, "dev": self.dev, "test": self.test, "error": self.error}


def repeat(bench: Bench, best: Recipe) -> list[Repeat]:
    """Train both with seeds that the sweep has not seen and measure all; an interrupted call goes on where it was.

    The best trial's own model does not count: it was picked for what it reached with its seed. Where the best is the
    experiment as it stands, each seed is trained once.
    """
    found: list[Repeat] = []
    for seed in fresh_seeds(bench.base.seed, best, bench.base.tune.num_seeds):
        for who, recipe in ((DEFAULT, Recipe(({},))), (BEST, best)):
            if who == BEST and changes_nothing(bench.base, best):
                found.append(replace(found[-1], who=BEST))
                continue
            folder = bench.work / REPEATS / f"{who}-{seed}"
            found.append(_repeat(bench, who, with_seed(recipe, seed), folder, seed))
    return found


def changes_nothing(base: Experiment, recipe: Recipe) -> bool:
    """Whether a recipe is the experiment as it stands, but for the seed."""
    return len(recipe.segments) == 1 and base.with_overrides({**recipe.overrides, "seed": base.seed}) == base


def fresh_seeds(own: int, best: Recipe, number: int) -> list[int]:
    """So many seeds after the experiment's own, but those of the best recipe."""
    used = {segment.get("seed", own) for segment in best.segments}
    return [seed for seed in range(own + 1, own + 1 + number + len(used)) if seed not in used][:number]


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe with another seed."""
    return Recipe(tuple({**segment, "seed": seed} for segment in recipe.segments), recipe.generations)


def _repeat(bench: Bench, who: str, recipe: Recipe, folder: Path, seed: int) -> Repeat:
    folder.mkdir(parents=True, exist_ok=True)
    log.info("%s with seed %d", who, seed)
    try:
        _train(bench, recipe, folder)
    except PASSING:
        raise
    except Exception as error:
        log.warning("%s with seed %d failed: %s", who, seed, error)
        write_text(folder / FAILED, f"{type(error).__name__}: {error}")
        return Repeat(who, seed, error=f"{type(error).__name__}: {error}")
    model = folder / MODEL
    dev = ended_of(model / LOG, bench.metric, looked_for_best(bench.base, recipe)).value
    if not has_test(bench.base):
        return Repeat(who, seed, dev)
    test, per_query = _on_test(bench, model, folder / TEST)
    return Repeat(who, seed, dev, test, per_query)


def _train(bench: Bench, recipe: Recipe, folder: Path) -> None:
    """Train into ``folder``; a lost process or node is no fault of the recipe, and the run goes on from its checkpoint.

    Raises:
        PASSING: after LOSSES of them; the next call of the sweep goes on here.
    """
    from ranker.training.trainer import fit

    for losses in range(LOSSES + 1):
        try:
            for segment in recipe.segments:
                if mines(segment):
                    mine_once(bench, trial_config(bench.base, segment, folder / MODEL, bench.work / MINED))
            in_slot(bench, folder / MODEL, lambda: make_model(bench.base, recipe, folder, fit, bench.work / MINED))
            return
        except PASSING as error:
            if losses == LOSSES:
                raise
            log.warning("%s: lost a process or a node, going on: %s", folder.name, error)


def looked_for_best(base: Experiment, recipe: Recipe) -> bool:
    """Whether a recipe's model has the weights of its best measurement."""
    return base.with_overrides(recipe.overrides).train.evaluate_every is not None


def has_test(config: Experiment) -> bool:
    """Whether there are test queries and an index to find their candidates in."""
    whole = all((config.folder(stage) / MANIFEST).is_file() for stage in ("data", "index"))
    return whole and SPLIT in stored_splits(config.folder("data"))


def _on_test(bench: Bench, model: Path, folder: Path) -> tuple[float, dict[str, float]]:
    from ranker.evaluation.evaluate import evaluate

    # One model on the experiment's own test queries, by one measure: what else `evaluate` may do is not asked here.
    asked: dict[str, Any] = {
        "evaluate.model": str(model), "evaluate.models": [], "evaluate.output_dir": str(folder), "evaluate.bm25": False,
        "evaluate.measures": [bench.metric], "evaluate.suite": None, "evaluate.latency_queries": 0,
        "evaluate.depth": list(bench.base.evaluate.depth[:1]),
    }  # fmt: skip
    done = evaluate(bench.base.with_overrides(asked))
    means = json.loads((done.folder / "metrics.json").read_text("utf-8"))["means"]
    table = pq.read_table(done.folder / "per_query.parquet")
    mine = table.filter(pc.equal(table["system"], "reranked"))
    values = dict(zip(mine["query_id"].to_pylist(), mine["value"].to_pylist(), strict=True))
    return float(means["reranked"][bench.metric]), values


def gains(repeats: list[Repeat]) -> dict[str, Gain]:
    """``dev`` and ``test``: the best against the default; a recipe that failed with a seed has a value less."""
    found = {}
    for where in ("dev", "test"):
        values = {
            who: [value for told in repeats if told.who == who and (value := getattr(told, where)) is not None]
            for who in (DEFAULT, BEST)
        }
        if values[DEFAULT] and values[BEST]:
            found[where] = compare_seeds(values[DEFAULT], values[BEST])
    return found
