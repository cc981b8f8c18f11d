"""The function that Tune runs in a process of its own; apart from what only the sweep needs, to start sooner."""

import json
import tempfile
from pathlib import Path
from typing import Any

from ray import tune

from ranker.manifest import write_json
from ranker.tuning.bench import Bench
from ranker.tuning.population import State, run_generations
from ranker.tuning.recipe import key_of
from ranker.tuning.records import note_start
from ranker.tuning.space import Space
from ranker.tuning.trial import FAILED_VALUE, SAMPLE, TIME, VALUE, run_trial

STATE = "state.json"


def make_trainable(bench: Bench, space: Space) -> Any:
    """A function of a trial's config."""

    def trial(config: dict[str, Any]) -> None:
        overrides = space.overrides(config[SAMPLE], bench.base)
        trial_id = tune.get_context().get_trial_id()
        if bench.base.tune.search == "pbt":
            folder = note_start(bench.work, trial_id, trial_id, overrides)
            run_generations(bench, overrides, folder, _restored(), _report)
            return
        told = run_trial(bench, overrides, note_start(bench.work, trial_id, key_of(overrides), overrides))
        tune.report(told or {VALUE: FAILED_VALUE, TIME: bench.rounds})

    return trial


def _restored() -> State:
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return State()
    with checkpoint.as_directory() as folder:
        return State.of(json.loads((Path(folder) / STATE).read_text("utf-8")))


def _report(metrics: dict[str, Any], state: State) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / STATE, state.plain())
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))
