"""The picture of a comparison: what changed for each query, sorted."""

import io
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

# More queries than this are drawn as one filled curve: bars would be thinner than a pixel.
MAX_BARS = 160

NAMES = ("text", "faint", "grid", "paper", "up", "down")
LIGHT = dict(zip(NAMES, ("#1f2937", "#6b7280", "#e5e7eb", "#ffffff", "#0f766e", "#c2410c"), strict=True))
DARK = dict(zip(NAMES, ("#e5e7eb", "#9ca3af", "#374151", "#171b22", "#2dd4bf", "#fb923c"), strict=True))


def change_plot(change: np.ndarray, measure: str, before: str, after: str, *, dark: bool = False) -> bytes:
    """A PNG of the per-query change of ``measure`` (after minus before), falling from left to right."""
    colours = DARK if dark else LIGHT
    values = np.sort(np.asarray(change, dtype=np.float64))[::-1]
    figure = Figure(figsize=(9.0, 4.4), dpi=160, facecolor=colours["paper"], layout="constrained")
    axes = figure.add_subplot(facecolor=colours["paper"])
    _draw(axes, values, colours)
    _label_axes(axes, values, measure, colours)
    _legend(axes, values, colours)
    axes.set_title(
        f"What {after} changed for each query, against {before}", loc="left", fontsize=13, weight="bold",
        color=colours["text"], pad=34,
    )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=colours["paper"], metadata={"Software": None})
    return buffer.getvalue()


def save_change_plot(path: Path, change: np.ndarray, measure: str, before: str, after: str) -> None:
    """Write the light picture to ``path``."""
    path.write_bytes(change_plot(change, measure, before, after))


def _draw(axes: Axes, values: np.ndarray, colours: dict[str, str]) -> None:
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


def _label_axes(axes: Axes, values: np.ndarray, measure: str, colours: dict[str, str]) -> None:
    axes.set_xlim(0.3, len(values) + 0.7)
    reach = max(float(np.abs(values).max()), 0.05) * 1.06
    axes.set_ylim(-reach if (values < 0).any() else -0.08 * reach, reach if (values > 0).any() else 0.08 * reach)
    axes.set_ylabel(f"change of {measure}", fontsize=10.5, color=colours["text"])
    axes.set_xlabel(f"{len(values)} test queries, sorted by change", fontsize=10.5, color=colours["text"])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.2f}" if abs(value) > 1e-12 else "0")
    axes.yaxis.grid(True, color=colours["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours["faint"], labelsize=9.5, length=0)
    axes.locator_params(axis="x", integer=True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend(axes: Axes, values: np.ndarray, colours: dict[str, str]) -> None:
    counts = {"up": (values > 0).sum(), "faint": (values == 0).sum(), "down": (values < 0).sum()}
    words = {"up": "better", "faint": "unchanged", "down": "worse"}
    parts: list[Artist] = [
        TextArea(f"{counts[name]:,} {words[name]}", textprops={"color": colours[name], "size": 10.5, "weight": "bold"})
        for name in counts
    ]
    line = AnchoredOffsetbox(
        loc="lower left", child=HPacker(children=parts, pad=0, sep=16), pad=0, borderpad=0, frameon=False,
        bbox_to_anchor=(0.0, 1.03), bbox_transform=axes.transAxes,
    )  # fmt: skip
    axes.add_artist(line)
