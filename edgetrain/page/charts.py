"""Charts as inline SVG and bars as plain HTML: no script, no library, no network.

Colours are CSS classes of the page, so that a chart follows its light and dark scheme. All text
is escaped here; numbers are formatted here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["LEAST_RANGE", "Bar", "Series", "bar_rows", "line_chart", "nice_ticks", "whole_ticks"]

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 26, 34
MOST_DOTS = 60
"""With more points than this a line is drawn without a dot at each."""

LEAST_RANGE = 1e-6
"""Values closer together than this, as a share of their size, are drawn as equal."""

Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line: its label, the CSS class of its colour, and its points (x, y) in order of x."""

    label: str
    style: str
    points: Sequence[tuple[float, float]]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers that cover low to high, evenly spaced."""
    if high - low < LEAST_RANGE * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / max(1, count - 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def line_chart(
    series: Sequence[Series], *, title: str, y_format: Format, x_label: str = "round"
) -> str:
    """Return an SVG of lines over a common x axis; the last point of each is written out.

    `title` is what a screen reader says. Without a single point, a sentence in its place.
    """
    points = [point for line in series for point in line.points]
    if not points:
        return f'<p class="empty">{escape(title)}: nothing to show.</p>'
    y_ticks = nice_ticks(min(y for _, y in points), max(y for _, y in points))
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    plot = Plot(x_low, x_high if x_high > x_low else x_low + 1, y_ticks[0], y_ticks[-1])
    parts = [plot.horizontal(tick, y_format(tick)) for tick in y_ticks]
    parts += [plot.vertical(tick) for tick in whole_ticks(x_low, x_high)]
    parts.append(
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">'
        f"{escape(x_label)}</text>"
    )
    for line in series:
        parts += plot.line(line, y_format, x_label)
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>\n{body}\n</svg>\n{legend(series)}"
    )


def whole_ticks(low: float, high: float) -> list[int]:
    """Return the first value and the round whole numbers that the x axis shows."""
    step = 1
    while high - low > 6 * step:
        # 1, 2, 5, 10, 20, 50, ...: a leading 2 goes to 5, others double.
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    ticks = range(math.ceil(low / step) * step, math.floor(high) + 1, step)
    first = math.ceil(low)
    return [first, *(tick for tick in ticks if tick - first >= step / 2)]


def legend(series: Sequence[Series]) -> str:
    """Return the names of the lines, where there is more than one."""
    named = [line for line in series if line.points]
    if len(named) < 2:
        return ""
    entries = "".join(
        f'<span><i class="key {escape(line.style)}"></i>{escape(line.label)}</span>'
        for line in named
    )
    return f'<p class="legend">{entries}</p>'


@dataclass(frozen=True)
class Plot:
    """Where numbers lie on the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Return the horizontal position of a value."""
        part = (value - self.x_low) / (self.x_high - self.x_low)
        return round(LEFT + part * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the vertical position of a value."""
        part = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM), 1)

    def horizontal(self, tick: float, text: str) -> str:
        """Return a grid line with its number."""
        y = self.y(tick)
        return (
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="axis" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(text)}</text>'
        )

    def vertical(self, tick: int) -> str:
        """Return a number under the x axis."""
        return (
            f'<text class="axis" x="{self.x(tick)}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{tick}</text>'
        )

    def line(self, line: Series, y_format: Format, x_label: str) -> list[str]:
        """Return a line, a dot at each point that says what it is, and the last value."""
        if not line.points:
            return []
        style = escape(line.style)
        path = " ".join(f"{self.x(x)},{self.y(y)}" for x, y in line.points)
        parts = [f'<polyline class="line {style}" points="{path}"/>']
        radius = 2.5 if len(line.points) <= MOST_DOTS else 0
        for x, y in line.points:
            tip = f"{line.label}, {x_label} {x:g}: {y_format(y)}"
            parts.append(
                f'<circle class="dot {style}" cx="{self.x(x)}" cy="{self.y(y)}" r="{radius}">'
                f"<title>{escape(tip)}</title></circle>"
            )
        x, y = line.points[-1]
        parts.append(
            f'<text class="value {style}" x="{self.x(x)}" y="{self.y(y) - 9}" text-anchor="end">'
            f"{escape(y_format(y))}</text>"
        )
        return parts


@dataclass(frozen=True)
class Bar:
    """One row of bars.

    `value` fills the bar and `mark` is a tick across it; `limit` is where the device's own limit
    lies, drawn as the end of its track. All three in the same unit, or None. `note` is the text at
    the end of the row, `label` the one at its start; `bad` paints the fill as a warning.
    """

    label: str
    value: float | None
    mark: float | None = None
    limit: float | None = None
    note: str = ""
    bad: bool = False


def bar_rows(bars: Sequence[Bar], style: str = "a") -> str:
    """Return rows of horizontal bars on one common scale."""
    known = [v for bar in bars for v in (bar.value, bar.mark, bar.limit) if v is not None]
    full = max(known, default=0.0) or 1.0
    return f'<div class="bars">{"".join(bar_row(bar, full, style) for bar in bars)}</div>'


def bar_row(bar: Bar, full: float, style: str) -> str:
    """Return one row: label, track, fill, mark, note."""

    def percent(value: float) -> str:
        return f"{100 * value / full:.2f}%"

    inside = ""
    if bar.limit is not None:
        inside += f'<b class="track" style="width:{percent(bar.limit)}"></b>'
    if bar.value is not None:
        paint = "bad" if bar.bad else escape(style)
        inside += f'<b class="fill {paint}" style="width:{percent(bar.value)}"></b>'
    if bar.mark is not None:
        inside += f'<b class="mark" style="left:{percent(bar.mark)}"></b>'
    return (
        f'<div class="row"><span class="name">{escape(bar.label)}</span>'
        f'<span class="rail">{inside}</span><span class="note">{escape(bar.note)}</span></div>'
    )
