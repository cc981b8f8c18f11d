"""The picture of a mining run: how right answers and chosen negatives score."""

import io
from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from numpy.typing import NDArray

# The more there is to count, the finer.
FEWEST_BINS, MOST_BINS = 10, 40
# Those of ranker.evaluation.plots.
TEXT, FAINT, GRID, PAPER = "#1f2937", "#6b7280", "#e5e7eb", "#ffffff"
RIGHT, WRONG = "#0f766e", "#c2410c"

Values = NDArray[np.float64]


class Panel(NamedTuple):
    """Scores of one kind, all of them finite.

    Args:
        title: what is shown. label: of the axis. right: scores of right answers. wrong: of negatives.
        limits: ends of the axis. None: those of the scores.
    """

    title: str
    label: str
    right: Values
    wrong: Values
    limits: tuple[float, float] | None = None


def score_plot(panels: Sequence[Panel]) -> bytes:
    """A PNG of the distributions, one panel below the other."""
    figure = Figure(
        figsize=(9.0, 4.0 * len(panels)), dpi=160, facecolor=PAPER, layout=ConstrainedLayoutEngine(hspace=0.08)
    )
    for number, panel in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, number, facecolor=PAPER)
        _draw(axes, panel)
        _label_axes(axes, panel)
        _legend(axes, panel)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def bin_edges(panel: Panel) -> Values:
    """Edges of equal bins that hold all scores of a panel, ascending."""
    scores = np.concatenate([panel.right, panel.wrong])
    low, high = panel.limits or ((float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0))
    if low == high:
        low, high = low - 0.05, high + 0.05
    rarest = min((len(values) for values in (panel.right, panel.wrong) if len(values)), default=0)
    return np.linspace(low, high, min(max(FEWEST_BINS, 2 * isqrt(rarest)), MOST_BINS) + 1)


def shares(values: Values, edges: Values) -> Values:
    """Per cent of the values in each bin; 0 where there are none."""
    counts, _ = np.histogram(values, edges)
    return 100 * counts / max(1, len(values))


def _draw(axes: Axes, panel: Panel) -> None:
    edges = bin_edges(panel)
    for values, colour in ((panel.wrong, WRONG), (panel.right, RIGHT)):
        if len(values):
            heights = shares(values, edges)
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22, linewidth=0)
            axes.stairs(heights, edges, color=colour, linewidth=1.5)
            axes.axvline(float(np.median(values)), color=colour, linewidth=1.3, linestyle=(0, (4, 3)))
    axes.set_xlim(edges[0], edges[-1])


def _label_axes(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", fontsize=13, weight="bold", color=TEXT, pad=34)
    axes.set_xlabel(panel.label, fontsize=10.5, color=TEXT)
    axes.set_ylabel("share of each kind", fontsize=10.5, color=TEXT)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    axes.yaxis.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9.5, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend(axes: Axes, panel: Panel) -> None:
    words = ((panel.right, "right answers", RIGHT), (panel.wrong, "negatives", WRONG))
    parts: list[Artist] = [
        TextArea(_said(values, kind), textprops={"color": colour, "size": 10.5, "weight": "bold"})
        for values, kind, colour in words
    ]
    line = AnchoredOffsetbox(
        loc="lower left", child=HPacker(children=parts, pad=0, sep=20), pad=0, borderpad=0, frameon=False,
        bbox_to_anchor=(0.0, 1.03), bbox_transform=axes.transAxes,
    )  # fmt: skip
    axes.add_artist(line)


def _said(values: Values, kind: str) -> str:
    """As in `312 negatives, median 0.42`."""
    return f"{len(values):,} {kind}" + (f", median {np.median(values):.2f}" if len(values) else "")
