"""The few shapes that the charts of a page are made of; colours are the page's own, light or dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.ticker import LogLocator, MaxNLocator

# Units of a drawing; the page makes it as wide as it can.
WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 16, 44


@dataclass(frozen=True)
class Scale:
    """Values on a line of the drawing.

    Args:
        low, high: values at its ends. start, end: where these lie. log: equal factors are equally long.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        low, high, own = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (own - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values between the ends."""
        if self.low == self.high:
            return [self.low]
        locator = (
            LogLocator(subs=(1.0, 2.0, 5.0), numticks=most) if self.log else MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])
        )
        return [float(tick) for tick in locator.tick_values(self.low, self.high) if self.low <= tick <= self.high]


def spread(values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Scale:
    """A scale for these values with some air at both ends."""
    low, high = min(values), max(values)
    air = margin * (high - low) or max(0.01, abs(high) * 0.01)
    return Scale(low - air, high + air, start, end)


def number(value: float) -> str:
    """A number on an axis."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


def drawing(parts: Sequence[str], title: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    """A whole chart; ``title`` says what it shows to who cannot see it."""
    wide = f' style="min-width:{width:g}px"' if width > WIDTH else ""
    return (
        f'<div class="scroll"><svg class="chart"{wide} viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg></div>'
    )


def text(x: float, y: float, words: str, kind: str = "tick", anchor: str = "middle") -> str:
    """Words at a place; ``kind`` is a class of the page's style."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(points: Sequence[tuple[float, float]], kind: str, trial: str = "", title: str = "") -> str:
    """A line through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"{_of(trial)}>{_title(title)}</polyline>'


def dot(x: float, y: float, kind: str, trial: str = "", title: str = "", radius: float = 5) -> str:
    """A point that can be pointed at."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"{_of(trial)}>{_title(title)}</circle>'


def cross(x: float, y: float, kind: str, trial: str = "", title: str = "", arm: float = 4) -> str:
    """Where something ended too soon."""
    path = f"M{x - arm:.1f},{y - arm:.1f}l{2 * arm:g},{2 * arm:g}m0,{-2 * arm:g}l{-2 * arm:g},{2 * arm:g}"
    return f'<path class="{kind}" d="{path}"{_of(trial)}>{_title(title)}</path>'


def rectangle(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    """A bar."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" rx="2">'
        f"{_title(title)}</rect>"
    )


def axes(
    x: Scale, y: Scale, x_label: str, y_label: str, x_ticks: Callable[[float], str] = number, height: float = HEIGHT
) -> list[str]:
    """Grid lines, their numbers and what they count."""
    parts = [line([(x.start, y.at(tick)), (x.end, y.at(tick))], "grid") for tick in y.ticks()]
    parts += [text(x.start - 8, y.at(tick) + 4, number(tick), anchor="end") for tick in y.ticks()]
    parts += [text(x.at(tick), y.start + 18, x_ticks(tick)) for tick in x.ticks(8)]
    parts.append(text((x.start + x.end) / 2, height - 6, x_label, "label"))
    parts.append(
        f'<text class="label" transform="translate(14,{(y.start + y.end) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return parts


def frame(xs: Sequence[float], ys: Sequence[float], height: float = HEIGHT) -> tuple[Scale, Scale]:
    """The two scales of an ordinary chart."""
    return spread(xs, LEFT, WIDTH - RIGHT, 0.03), spread(ys, height - BOTTOM, TOP)


def _of(trial: str) -> str:
    return f' data-trial="{escape(trial)}"' if trial else ""


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""
