"""The pictures of a comparison: what changed for each query, quality by depth, and quality against latency."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from matplotlib.ticker import NullLocator, ScalarFormatter

from ranker.evaluation.pictures import SERIES, Draw

# More queries than this are drawn as one filled curve: bars would be thinner than a pixel.
MAX_BARS = 160


def change_picture(change: np.ndarray, measure: str) -> Draw:
    """The per-query change of ``measure`` (after minus before), falling from left to right."""
    values = np.sort(np.asarray(change, dtype=np.float64))[::-1]

    def draw(axes: Axes, colours: dict[str, str], narrow: bool) -> None:
        _draw_change(axes, values, colours)
        _label_change(axes, values, measure, colours)
        _counts(axes, values, colours)

    return draw


def depth_picture(lines: Mapping[str, Sequence[tuple[int, float]]], level: tuple[str, float], measure: str) -> Draw:
    """Quality of each model (points of depth and mean) over the depth, and the first stage as a level line."""

    def draw(axes: Axes, colours: dict[str, str], narrow: bool) -> None:
        depths = sorted({depth for points in lines.values() for depth, _ in points})
        axes.set_xscale("log")
        for (label, points), style in zip(lines.items(), _styles(colours), strict=False):
            ordered = sorted(points)
            axes.plot(*zip(*ordered, strict=True), **style, linewidth=1.8, label=label)
        axes.axhline(level[1], color=colours["faint"], linewidth=1.2, linestyle=(0, (4, 3)), label=level[0])
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("documents reranked", fontsize=10.5, color=colours["text"])
        axes.set_ylabel(measure, fontsize=10.5, color=colours["text"])
        _legend(axes, colours)

    return draw


def latency_picture(points: Mapping[str, Sequence[tuple[float, float, str]]], measure: str) -> Draw:
    """Quality of each model over the milliseconds of one query: (median, mean, what stands beside the point)."""

    def draw(axes: Axes, colours: dict[str, str], narrow: bool) -> None:
        axes.set_xscale("log")
        for (label, some), style in zip(points.items(), _styles(colours), strict=False):
            ordered = sorted(some)
            times, values = [point[0] for point in ordered], [point[1] for point in ordered]
            axes.plot(times, values, **style, linewidth=1.0, alpha=0.9, label=label)
            for time, value, beside in ordered:
                axes.annotate(
                    beside, (time, value), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9,
                    color=colours["text"],
                )  # fmt: skip
        axes.margins(x=0.12, y=0.18)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set_xlabel("milliseconds a query, median", fontsize=10.5, color=colours["text"])
        axes.set_ylabel(measure, fontsize=10.5, color=colours["text"])
        _legend(axes, colours)

    return draw


def _styles(colours: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A look for each model without end: the colours in turn, with another mark and line each time round."""
    for marker, line in cycle((("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))):
        for name in SERIES:
            yield {"color": colours[name], "marker": marker, "linestyle": line}


def _legend(axes: Axes, colours: dict[str, str]) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.01), ncols=2, frameon=False, fontsize=9.5, labelcolor=colours["text"],
        borderaxespad=0.0, handlelength=1.4,
    )  # fmt: skip


def _draw_change(axes: Axes, values: np.ndarray, colours: dict[str, str]) -> None:
    place = np.arange(1, len(values) + 1)
    for sign, name in ((values > 0, "up"), (values < 0, "down")):
        if len(values) <= MAX_BARS:
            axes.bar(place[sign], values[sign], width=0.86, color=colours[name], linewidth=0)
        else:
            shown = np.where(sign, values, 0.0)
            axes.fill_between(place, shown, step="mid", color=colours[name], linewidth=0)
    axes.axhline(0, color=colours["faint"], linewidth=0.9)
    mean = float(values.mean())
    axes.axhline(mean, color=colours["text"], linewidth=1.1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"mean {mean:+.3f}", xy=(1.0, mean), xycoords=("axes fraction", "data"), xytext=(-4, 4 if mean >= 0 else -4),
        textcoords="offset points", ha="right", va="bottom" if mean >= 0 else "top", fontsize=10, weight="bold",
        color=colours["text"],
    )  # fmt: skip


def _label_change(axes: Axes, values: np.ndarray, measure: str, colours: dict[str, str]) -> None:
    axes.set_xlim(0.3, len(values) + 0.7)
    reach = max(float(np.abs(values).max()), 0.05) * 1.06
    axes.set_ylim(-reach if (values < 0).any() else -0.08 * reach, reach if (values > 0).any() else 0.08 * reach)
    axes.set_ylabel(f"change of {measure}", fontsize=10.5, color=colours["text"])
    axes.set_xlabel(f"{len(values)} queries, sorted by change", fontsize=10.5, color=colours["text"])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.2f}" if abs(value) > 1e-12 else "0")
    axes.locator_params(axis="x", integer=True)


def _counts(axes: Axes, values: np.ndarray, colours: dict[str, str]) -> None:
    counts = {"up": (values > 0).sum(), "faint": (values == 0).sum(), "down": (values < 0).sum()}
    words = {"up": "better", "faint": "same", "down": "worse"}
    parts: list[Artist] = [
        TextArea(f"{counts[name]:,} {words[name]}", textprops={"color": colours[name], "size": 10.5, "weight": "bold"})
        for name in counts
    ]
    line = AnchoredOffsetbox(
        loc="lower left", child=HPacker(children=parts, pad=0, sep=16), pad=0, borderpad=0, frameon=False,
        bbox_to_anchor=(0.0, 1.03), bbox_transform=axes.transAxes,
    )  # fmt: skip
    axes.add_artist(line)
