"""Measure the ways to run a model on pairs: how fast each is, and how faithful to torch fp32."""

import logging
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from ranker.scoring.choice import Trial, Way
from ranker.scoring.parity import Parity, compare
from ranker.scoring.samples import Samples
from ranker.scoring.scorer import Engine, Scorer

log = logging.getLogger(__name__)
Scores = dict[tuple[str, str, str | None], np.ndarray]

# Seconds that one way may take for its scores, and about a third of what it may take for its speed.
SECONDS = 6.0
# Rounds of timing, in which the ways take turns: a machine that is busy for a while slows all of them alike.
ROUNDS = 3
ROUND_SECONDS = 1.0
# Pairs scored between two looks at the clock, and the fewest of a round.
STEP = 32
FEWEST = 8


def try_ways(
    ways: Sequence[Way],
    open_engine: Callable[[Way], Engine],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    samples: Samples,
    batch_tokens: int,
) -> list[Trial]:
    """A trial for each way, in their order; the first way's scores are what the others are compared with.

    A way that cannot be opened or fails is a trial with a ``failure``, unless it is the first. Ways that differ only
    in lanes share one comparison.
    """
    scorers: dict[Way, Scorer] = {}
    failures: dict[Way, str] = {}
    for number, way in enumerate(ways):
        try:
            scorers[way] = Scorer(open_engine(way), tokenizer, max_length, batch_tokens)
            scorers[way].score(samples.pairs[:2])
        except Exception as error:  # an engine's exceptions have no common class
            if number == 0:
                raise
            scorers.pop(way, None)
            failures[way] = f"cannot run: {error}"
    scores: Scores = {}
    if len({way.kind for way in scorers}) > 1:
        exact = _in_time(scorers[ways[0]], samples, SECONDS)
        samples = samples.first(len(exact))
        scores[ways[0].kind] = exact
    for way, scorer in scorers.items():
        if scores and way.kind not in scores:
            scores[way.kind] = scorer.score(samples.pairs)
    speeds = _speeds(scorers, samples)
    for scorer in scorers.values():
        scorer.engine.lanes.close()
    return [Trial(way, speeds.get(way, 0.0), _parity(way, ways[0], scores, samples), failures.get(way)) for way in ways]


def _parity(way: Way, first: Way, scores: Scores, samples: Samples) -> Parity | None:
    if way.kind == first.kind or way.kind not in scores:
        return None
    return compare(f"{way.engine} {way.precision}", scores[first.kind], scores[way.kind], samples.pairs, samples.labels)


def _in_time(scorer: Scorer, samples: Samples, seconds: float) -> np.ndarray:
    """Scores of as many samples as there is time for."""
    found: list[np.ndarray] = []
    end = time.monotonic() + seconds
    for start in range(0, len(samples.pairs), STEP):
        found.append(scorer.score(samples.pairs[start : start + STEP]))
        if time.monotonic() > end:
            break
    return np.concatenate(found)


def _speeds(scorers: dict[Way, Scorer], samples: Samples) -> dict[Way, float]:
    """Pairs a second of each way, the median of rounds in which they take turns."""
    first = next(iter(scorers.values()))
    begin = time.perf_counter()
    first.score(samples.pairs[:FEWEST])
    rate = min(FEWEST, len(samples.pairs)) / (time.perf_counter() - begin)
    some = samples.pairs[: max(FEWEST, int(rate * ROUND_SECONDS))]
    seconds: dict[Way, list[float]] = {way: [] for way in scorers}
    for _ in range(ROUNDS):
        for way, scorer in scorers.items():
            begin = time.perf_counter()
            scorer.score(some)
            seconds[way].append(time.perf_counter() - begin)
    return {way: len(some) / max(statistics.median(times), 1e-9) for way, times in seconds.items()}
