"""Measure the ways to run a model on pairs: how fast each is, and how faithful to torch fp32.

One way is open at a time, and in the end the two that may be chosen: a large model is never in memory more often.
"""

import gc
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from ranker.scoring.choice import Trial, Way
from ranker.scoring.parity import Parity, compare
from ranker.scoring.samples import Samples
from ranker.scoring.scorer import Engine, Scorer

log = logging.getLogger(__name__)

# Seconds that one way may take for its scores, and about a third of what it may take for its speed.
SECONDS = 6.0
# Rounds of a way's first reading, the quickest of which counts, and of the last ones, in which they take turns: a
# machine that is busy for a while slows all of them alike.
FIRST_ROUNDS = 2
ROUNDS = 3
ROUND_SECONDS = 1.0
# Seconds that the fastest of the last ways is read for; there are as many rounds as that takes, up to MOST_ROUNDS.
LAST_SECONDS = 2.0
MOST_ROUNDS = 25
# Ways that take turns in the end.
FINALISTS = 2
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
    allowed: Callable[[Trial], bool] = lambda trial: True,
) -> list[Trial]:
    """A trial for each way, in their order; the first way's scores are what the others are compared with.

    A way that cannot be opened or fails is a trial with a ``failure``, unless it is the first. Ways that differ only
    in lanes share one comparison. The fastest two that are ``allowed`` are timed again, in turns.
    """

    @contextmanager
    def opened(way: Way) -> Iterator[Scorer]:
        engine = open_engine(way)
        try:
            yield Scorer(engine, tokenizer, max_length, batch_tokens)
        finally:
            engine.lanes.close()

    def read(way: Way) -> Trial:  # a function of its own, after which nothing names the engine
        with opened(way) as scorer:
            return round_of.first_reading(way, scorer)

    round_of = _Round(samples, several=len({way.kind for way in ways}) > 1)
    trials: list[Trial] = []
    for number, way in enumerate(ways):
        try:
            trials.append(read(way))
        except Exception as error:  # an engine's exceptions have no common class
            if number == 0:
                raise
            trials.append(Trial(way, 0.0, None, f"cannot run: {error}"))
        gc.collect()  # weights of an engine that is gone may hang in a cycle
    finalists = sorted(filter(allowed, trials), key=lambda trial: -trial.pairs_per_second)[:FINALISTS]
    with ExitStack() as stack:
        scorers = {trial.way: stack.enter_context(opened(trial.way)) for trial in finalists}
        speeds = round_of.in_turns(scorers)
    return [
        replace(trial, pairs_per_second=speeds[trial.way], finalist=True) if trial.way in speeds else trial
        for trial in trials
    ]


@dataclass
class _Round:
    """What is measured on, and what has been found so far.

    Args:
        samples: cut to what the first way scores in time. several: there is more than one kind to compare.
        exact: scores of the first way. timed: pairs of a reading.
    """

    samples: Samples
    several: bool
    exact: np.ndarray | None = None
    timed: Sequence[tuple[str, str]] = ()
    known: dict[tuple[str, str, str | None], Parity | None] = field(default_factory=dict)

    def first_reading(self, way: Way, scorer: Scorer) -> Trial:
        scorer.score(self.samples.pairs[:2])
        if not self.timed:  # the first way: the reference
            self.known[way.kind] = None
            if self.several:
                self.exact = _in_time(scorer, self.samples, SECONDS)
                self.samples = self.samples.first(len(self.exact))
            self.timed = self._enough(scorer)
        if way.kind not in self.known and self.exact is not None:
            pairs, labels = self.samples
            name = f"{way.engine} {way.precision}"
            self.known[way.kind] = compare(name, self.exact, scorer.score(pairs), pairs, labels)
        seconds = min(self._seconds(scorer) for _ in range(FIRST_ROUNDS))
        return Trial(way, len(self.timed) / max(seconds, 1e-9), self.known[way.kind])

    def in_turns(self, scorers: dict[Way, Scorer]) -> dict[Way, float]:
        """Pairs a second of each way, the median of rounds in which they take turns."""
        # The first batches of an engine are slower.
        first = [self._seconds(scorer) for scorer in scorers.values()]
        rounds = min(MOST_ROUNDS, max(ROUNDS, round(LAST_SECONDS / max(min(first, default=1.0), 1e-3))))
        seconds: dict[Way, list[float]] = {way: [] for way in scorers}
        for _ in range(rounds):
            for way, scorer in scorers.items():
                seconds[way].append(self._seconds(scorer))
        return {way: len(self.timed) / max(statistics.median(times), 1e-9) for way, times in seconds.items()}

    def _enough(self, scorer: Scorer) -> Sequence[tuple[str, str]]:
        begin = time.perf_counter()
        scorer.score(self.samples.pairs[:FEWEST])
        rate = min(FEWEST, len(self.samples.pairs)) / (time.perf_counter() - begin)
        return self.samples.pairs[: max(FEWEST, int(rate * ROUND_SECONDS))]

    def _seconds(self, scorer: Scorer) -> float:
        begin = time.perf_counter()
        scorer.score(self.timed)
        return time.perf_counter() - begin


def _in_time(scorer: Scorer, samples: Samples, seconds: float) -> np.ndarray:
    """Scores of as many samples as there is time for."""
    found: list[np.ndarray] = []
    end = time.monotonic() + seconds
    for start in range(0, len(samples.pairs), STEP):
        found.append(scorer.score(samples.pairs[start : start + STEP]))
        if time.monotonic() > end:
            break
    return np.concatenate(found)
