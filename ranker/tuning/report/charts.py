"""The charts of a sweep."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ranker.tuning.noise import Gain
from ranker.tuning.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    axes,
    cross,
    dot,
    drawing,
    frame,
    line,
    number,
    rectangle,
    spread,
    text,
)
from ranker.tuning.trials import Trial, pareto_front, short

# Shades from the worst to the best trial.
SHADES = 5


def told(trial: Trial, metric: str) -> str:
    """What pointing at a trial says."""
    value = "no value" if math.isnan(trial.value) else f"{metric} {trial.value:.4f}"
    settings = ", ".join(f"{path.removeprefix('train.')}={short(v)}" for path, v in trial.overrides.items())
    return f"trial {trial.number}, {trial.status}: {value}; {settings}"


def history_chart(trials: Sequence[Trial], best: Trial, metric: str) -> str:
    """Value of each trial in the order in which they began, and the best so far."""
    valued = [trial for trial in trials if not math.isnan(trial.value)]
    x, y = frame([0.5, max(trial.number for trial in trials) + 0.5], [trial.value for trial in valued])
    parts = axes(x, y, "trial", f"dev {metric}", lambda tick: f"{tick:g}" if float(tick).is_integer() else "")
    steps, highest = list[tuple[float, float]](), -math.inf
    for trial in trials:
        if trial.score > highest:
            steps += [(x.at(trial.number), y.at(highest))] if steps else []
            highest = trial.score
            steps.append((x.at(trial.number), y.at(highest)))
    parts.append(line([*steps, (x.end, y.at(highest))], "best-line") if steps else "")
    for trial in trials:
        name, words = str(trial.number), told(trial, metric)
        if math.isnan(trial.value):
            parts.append(cross(x.at(trial.number), y.start - 6, "failed", name, words))
            continue
        kind = "best" if trial is best else trial.status
        parts.append(dot(x.at(trial.number), y.at(trial.value), kind, name, words, 7 if trial is best else 5))
    return drawing(parts, f"dev {metric} of every trial in order, with the best so far")


def intermediate_chart(trials: Sequence[Trial], best: Trial, metric: str) -> str | None:
    """Every measurement on the way; trials that were stopped end in a cross. None where there was but one a trial."""
    shown = [trial for trial in trials if len(trial.points) > 1 or (trial.points and trial.status == "stopped")]
    if not shown:
        return None
    values = [point.value for trial in shown for point in trial.points]
    x, y = Scale(0.0, 1.0, LEFT, WIDTH - RIGHT), spread(values, HEIGHT - BOTTOM, TOP)
    parts = axes(x, y, "share of the steps", f"dev {metric}", lambda tick: f"{tick:.0%}")
    for trial in sorted(shown, key=lambda trial: (trial is best, trial.status == "finished")):
        points = [(x.at(point.share), y.at(point.value)) for point in trial.points]
        name, words = str(trial.number), told(trial, metric)
        kind = "best" if trial is best else trial.status
        parts.append(line(points, f"curve {kind}", name, words))
        ends = cross if trial.status == "stopped" else dot
        parts.append(ends(*points[-1], kind, name, words))
    return drawing(parts, f"dev {metric} of every trial while it trained")


@dataclass(frozen=True)
class Axis:
    """One setting as an axis of the parallel coordinates."""

    path: str
    x: float
    scale: Scale
    places: Mapping[str, float]
    foot: float

    def at(self, trial: Trial) -> float:
        """Where a trial crosses it; at its foot where the setting did not count."""
        if self.path not in trial.overrides:
            return self.foot
        value = trial.overrides[self.path]
        return self.places[_word(value)] if self.places else self.scale.at(float(value))

    def drawn(self) -> list[str]:
        """The axis with its values."""
        marks = dict(self.places) or {number(tick): self.scale.at(tick) for tick in self.scale.ticks(5)}
        parts = [line([(self.x, self.scale.start), (self.x, self.scale.end)], "axis")]
        parts += [text(self.x - 6, y + 4, word[:18], anchor="end") for word, y in marks.items()]
        return [*parts, text(self.x, TOP - 2, self.path.rpartition(".")[2][:18], "label")]


def parallel_chart(
    trials: Sequence[Trial], best: Trial, paths: Sequence[str], metric: str, endless: Collection[str] = ()
) -> str | None:
    """A line a trial through its settings to its value, the better the darker. None where nothing varied.

    Args:
        endless: paths of which any number between two can be; the values of the others stand side by side.
    """
    valued = [trial for trial in trials if not math.isnan(trial.value)]
    if not paths or not valued:
        return None
    width, height = max(WIDTH, 130.0 * (len(paths) + 1)), HEIGHT + 30
    places = [130 + number * (width - 180) / len(paths) for number in range(len(paths) + 1)]
    start, end = height - 40, TOP + 14
    made = [
        _axis(path, x, [t.overrides.get(path) for t in trials if path in t.overrides], (start, end), valued,
              path in endless)
        for path, x in zip(paths, places, strict=False)
    ]  # fmt: skip
    last = spread([trial.value for trial in valued], start, end)
    parts = [part for axis in made for part in axis.drawn()]
    parts += [line([(places[-1], start), (places[-1], end)], "axis"), text(places[-1], TOP - 2, metric, "label")]
    parts += [text(places[-1] + 6, last.at(tick) + 4, number(tick), anchor="start") for tick in last.ticks(5)]
    order = sorted(valued, key=lambda trial: trial.value)
    for rank, trial in enumerate(order):
        points = [(axis.x, axis.at(trial)) for axis in made] + [(places[-1], last.at(trial.value))]
        shade = rank * SHADES // len(order)
        kind = "curve best" if trial is best else f"curve shade{shade}"
        parts.append(line(points, kind, str(trial.number), told(trial, metric)))
    if any(path not in trial.overrides for path in paths for trial in valued):
        parts.append(text(width / 2, height - 6, "below an axis: the setting did not count in that trial", "tick"))
    return drawing(parts, f"settings of every trial and its dev {metric}", width, height)


def _axis(
    path: str, x: float, values: list[Any], ends: tuple[float, float], trials: Sequence[Trial], endless: bool
) -> Axis:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    missing = any(path not in trial.overrides for trial in trials)
    start, end = ends
    lowest = start - 18 if missing else start
    if numbers and endless and len(set(values)) > 1:
        low, high = min(values), max(values)
        return Axis(path, x, Scale(low, high, lowest, end, log=low > 0 and high / low >= 10), {}, start + 8)
    known = {_word(value): value for value in values}
    words = sorted(known, key=lambda word: (known[word] is not None, known[word])) if numbers else sorted(known)
    step = (end - lowest) / max(1, len(words) - 1)
    marks = {word: lowest + step * place if len(words) > 1 else (lowest + end) / 2 for place, word in enumerate(words)}
    return Axis(path, x, Scale(0, 1, lowest, end), marks, start + 8)


def _word(value: Any) -> str:
    return short(value) if not isinstance(value, dict) else json.dumps(value)


def importance_chart(shares: Mapping[str, float]) -> str | None:
    """A bar a setting. None where nothing is known."""
    if not shares:
        return None
    height, left = 30.0 * len(shares) + 16, 250
    x = Scale(0.0, max(shares.values()) or 1.0, left, WIDTH - 70)
    parts = []
    for row, (path, share) in enumerate(shares.items()):
        y = 10 + 30.0 * row
        parts.append(text(left - 10, y + 15, path, "label", "end"))
        parts.append(rectangle(left, y, x.at(share) - left, 20, "bar", path))
        parts.append(text(x.at(share) + 8, y + 15, f"{share:.0%}", "tick", "start"))
    return drawing(parts, "share of the variance that each setting explains", WIDTH, height)


def pareto_chart(trials: Sequence[Trial], best: Trial, metric: str) -> str | None:
    """Quality against milliseconds, and the trials that no other beats in both. None where no time was measured."""
    timed = [trial for trial in trials if trial.latency_ms is not None and trial.score > -math.inf]
    if not timed:
        return None
    front = pareto_front(timed)
    x, y = frame([trial.latency_ms or 0.0 for trial in timed], [trial.value for trial in timed])
    parts = axes(x, y, "milliseconds a query", f"dev {metric}")
    points = [(x.at(trial.latency_ms or 0.0), y.at(trial.value)) for trial in front]
    stairs = [step for one, two in pairwise(points) for step in (one, (two[0], one[1]))]
    parts.append(line([*stairs, points[-1]], "best-line"))
    for trial in timed:
        kind = "best" if trial is best else "finished" if trial in front else "faint-dot"
        parts.append(
            dot(x.at(trial.latency_ms or 0.0), y.at(trial.value), kind, str(trial.number), told(trial, metric))
        )
    return drawing(parts, f"dev {metric} against milliseconds a query")


def seeds_chart(gains: Mapping[str, Gain], metric: str) -> str | None:
    """A dot a seed of the default and the best, on dev and on test, with their means."""
    rows = [(f"{where}, {who}", values) for where, gain in gains.items()
            for who, values in (("default", gain.default), ("best", gain.best))]  # fmt: skip
    if not rows:
        return None
    height = 34.0 * len(rows) + BOTTOM + 6
    x = spread([value for _, values in rows for value in values], 140, WIDTH - RIGHT)
    parts = [line([(x.at(tick), 4), (x.at(tick), height - BOTTOM)], "grid") for tick in x.ticks()]
    parts += [text(x.at(tick), height - BOTTOM + 18, number(tick)) for tick in x.ticks()]
    for row, (name, values) in enumerate(rows):
        y, kind = 22 + 34.0 * row, "best" if name.endswith("best") else "finished"
        mean = sum(values) / len(values)
        parts += [
            text(128, y + 4, name, "label", "end"),
            line([(x.at(mean), y - 11), (x.at(mean), y + 11)], f"mean {kind}"),
        ]
        parts += [dot(x.at(value), y, kind, title=f"{name}: {value:.4f}") for value in values]
    return drawing([*parts, text((140 + WIDTH) / 2, height - 6, metric, "label")], f"{metric} a seed", WIDTH, height)
