"""The engine of a model: the one that the config names, the one chosen before, or the best one measured now."""

import logging
import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ranker.config import ScoringConfig
from ranker.scoring.cascade import Cascade
from ranker.scoring.cascade_loss import cascade_loss
from ranker.scoring.choice import Trial, Way, fastest, report, why_not
from ranker.scoring.decisions import alone, decision_key, keep, recall
from ranker.scoring.lanes import usable_threads
from ranker.scoring.model_folder import ModelFiles
from ranker.scoring.samples import sample_file, sample_lists, sample_pairs
from ranker.scoring.scorer import Engine, Scorer
from ranker.scoring.trials import try_ways
from ranker.scoring.ways import choose_engine, fixed_way, open_way, possible_ways

log = logging.getLogger(__name__)


def settled_engine(
    files: ModelFiles,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    config: ScoringConfig,
    device: str | None = None,
) -> Engine:
    """The engine of a model.

    Args:
        config: with engine and precision ``auto``, a CPU's ways are measured once; whatever else is named is taken.
        device: as torch names it. None: the first GPU, else the CPU. On a GPU nothing is measured.

    Raises:
        ValueError: an engine, precision or device that cannot be.
    """
    if not _open(files, config, device):
        return open_way(files, fixed_way(files, config), device)
    way = settled_way(files, tokenizer, max_length, config)
    return open_way(files, way, "cpu")


def settled_way(
    files: ModelFiles, tokenizer: PreTrainedTokenizerBase, max_length: int, config: ScoringConfig, again: bool = False
) -> Way:
    """The best way on this machine: remembered, or measured now, logged and kept; ``again`` measures in any case."""
    ways = possible_ways(files, config)
    if len(ways) == 1:
        return ways[0]
    key = decision_key(files, max_length, config.threads or usable_threads(), config)
    with alone(key):  # two processes that measure at once would slow each other
        known = None if again else recall(files, key)
        if known is not None and (way := _remembered(known, ways)) is not None:
            log.info("%s: %s, as measured on %s", files.name, way, known.get("when"))
            return way
        return _measured(files, tokenizer, max_length, config, ways, key)


def decision(files: ModelFiles, max_length: int, config: ScoringConfig) -> dict[str, Any] | None:
    """What was kept of the choice for this model on this machine, with all its numbers."""
    return recall(files, decision_key(files, max_length, config.threads or usable_threads(), config))


def cascade_measured(
    files: ModelFiles, tokenizer: PreTrainedTokenizerBase, max_length: int, config: ScoringConfig, way: Way
) -> dict[str, Any]:
    """What the cascade of a config loses and saves, run this way: see :func:`cascade_loss`."""
    scorer = Scorer(
        open_way(files, way, "cpu"), tokenizer, max_length, config.batch_tokens,
        max_passages=config.max_passages if config.passage_score == "max" else 1,
    )  # fmt: skip
    file = samples_of(files, config)
    cascade = Cascade(config.cascade_tokens or max_length, config.cascade_keep)
    found = cascade_loss(scorer, cascade, sample_lists(file, config.num_samples))
    scorer.engine.lanes.close()
    return {**found, "samples": str(file) if file else "built-in"}


def _measured(
    files: ModelFiles,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    config: ScoringConfig,
    ways: list[Way],
    key: str,
) -> Way:
    file = samples_of(files, config)
    samples = sample_pairs(file, config.num_samples)
    log.info("%s: measuring %d ways to score on %d pairs, once", files.name, len(ways), len(samples.pairs))
    begin = time.monotonic()
    trials = try_ways(
        ways, lambda way: open_way(files, way, "cpu"), tokenizer, max_length, samples, config.batch_tokens,
        lambda trial: why_not(trial, config) is None,
    )  # fmt: skip
    chosen = fastest(trials, config).way
    for line in report(trials, chosen, config):
        log.info("  %s", line)
    keep(files, key, _written(trials, chosen, file, time.monotonic() - begin))
    return chosen


def _written(trials: list[Trial], chosen: Way, file: Path | None, seconds: float) -> dict[str, Any]:
    return {
        "chosen": trials[[trial.way for trial in trials].index(chosen)].plain()["way"],
        "trials": [trial.plain() for trial in trials],
        "samples": str(file) if file else "built-in",
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(seconds, 1),
    }


def _remembered(known: dict[str, Any], ways: list[Way]) -> Way | None:
    """The way of a decision; None where it is not possible any more."""
    try:
        way = Way(**known["chosen"])
    except (KeyError, TypeError):
        return None
    return way if way in ways else None


def samples_of(files: ModelFiles, config: ScoringConfig) -> Path | None:
    """The user's own pairs: those named, else those of the experiment that the model lies in.

    Raises:
        FileNotFoundError: where the file that is named is not there.
    """
    if config.samples is not None:
        named = Path(config.samples).expanduser()
        if not named.is_file():
            raise FileNotFoundError(
                f"scoring.samples: {named}: no such file; name a groups.parquet, as `mine` writes it"
            )
        return named
    return sample_file(Path(files.model).absolute().parent / "mine")


def _open(files: ModelFiles, config: ScoringConfig, device: str | None) -> bool:
    """Whether there is something to measure."""
    if config.engine != "auto" or config.precision != "auto" or (device or "cpu") != "cpu":
        return False
    if choose_engine(files, "auto") == "torch" and device is None:
        from ranker.scoring.torch_engine import choose_device

        return choose_device(None) == "cpu"
    return True
