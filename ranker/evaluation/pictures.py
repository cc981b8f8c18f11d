"""A picture as SVG whose colours are those of the page around it, or as PNG."""

import io
import re
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SERIES = ("s0", "s1", "s2", "s3", "s4", "s5")
NAMES = ("text", "faint", "grid", "paper", "up", "down", *SERIES)
LIGHT = dict(
    zip(
        NAMES,
        ("#1f2937", "#6b7280", "#e5e7eb", "#ffffff", "#0f766e", "#c2410c", "#0f766e", "#1d4ed8", "#b45309", "#7e22ce",
         "#be123c", "#4d7c0f"),
        strict=True,
    )
)  # fmt: skip
# Colours that nothing else in a picture has; in the SVG they become the page's variables.
MARKS = {name: f"#0102{number:02x}" for number, name in enumerate(NAMES, 16)}
# Inches: as wide as a page, and as wide as a phone, where letters must stay as large.
WIDE, NARROW = (8.6, 4.2), (4.1, 3.7)

Draw = Callable[[Axes, dict[str, str], bool], None]


def as_svg(draw: Draw, title: str) -> str:
    """Two inline SVGs, one of which the page shows, by its width; light or dark as the page is.

    Args:
        draw: (axes, colour names to colours, whether it is narrow). title: what a screen reader says.
    """
    return "".join(
        f'<div class={name} role=img aria-label="{title}">{_svg(draw, size, f"{title} {name}")}</div>'
        for name, size in (("wide", WIDE), ("narrow", NARROW))
    )


def as_png(draw: Draw) -> bytes:
    """The light, wide picture."""
    buffer = io.BytesIO()
    figure = _figure(draw, WIDE, LIGHT)
    figure.savefig(buffer, format="png", dpi=160, facecolor=LIGHT["paper"], metadata={"Software": None})
    return buffer.getvalue()


def _figure(draw: Draw, size: tuple[float, float], colours: dict[str, str]) -> Figure:
    figure = Figure(figsize=size, facecolor=colours["paper"], layout="constrained")
    axes = figure.add_subplot(facecolor=colours["paper"])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=colours["faint"], labelsize=9.5, length=0, which="both")
    axes.yaxis.grid(True, color=colours["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    draw(axes, colours, size == NARROW)
    return figure


def _svg(draw: Draw, size: tuple[float, float], salt: str) -> str:
    buffer = io.StringIO()
    # Text stays text. The salt keeps the ids of two pictures on one page apart, and the same in every run.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        _figure(draw, size, MARKS).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    head, body = text.split(">", 1)
    head = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", head)
    for name, mark in MARKS.items():
        body = body.replace(mark, f"var(--{name})")
    return f"{head}>{body.replace('xlink:href', 'href').strip()}"
