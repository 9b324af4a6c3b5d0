"""Charts of a report as SVG: curves over steps, bars with intervals, a reliability diagram.

Colours are variables of the page (`--tone-0` and so on), so that light, dark and printed pages have their own; series
differ by dashes and signs, too. Each chart has a title and a description for those who do not see it. Texts are
escaped here: what comes back is safe to put into a page as it is.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from xlner.notebook import shown
from xlner.report.measures import Calibration, Estimate

N_TONES = 6
FEW = 10  # answers of a bin, below which its share says little
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
WIDTH, HEIGHT = 480.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 12.0, 42.0
_CHAR = 7.2  # about the width of a letter, to wrap legends

Points = Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """A bar from 0 to `value`; `low` and `high` are the ends of its interval, None where there is none."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, label: str, estimate: Estimate) -> "Bar":
        """The bar of a score with its interval."""
        return cls(label, estimate.value, estimate.low, estimate.high)


def curves(title: str, series: Mapping[str, Points], *, x_label: str, y_label: str, y_most: float = math.inf) -> Markup:
    """Lines over a common axis, which ends at `y_most` at the latest, with a legend; empty where there is no point."""
    points = [point for line in series.values() for point in line]
    if not points:
        return Markup("")
    x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points))
    highest = max(y for _, y in points)
    y_ticks = _ticks(min(y for _, y in points), highest)
    while len(y_ticks) > 2 and y_ticks[-2] >= highest and y_ticks[-1] > y_most:
        y_ticks.pop()
    plot = _Plot((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    parts = [*plot.axes(x_ticks, y_ticks, x_label, y_label)]
    for number, line in enumerate(series.values()):
        look = f'class="line tone-{number % N_TONES}" stroke-dasharray="{DASHES[number % len(DASHES)]}"'
        places = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in line)
        parts.append(f'<polyline {look} points="{places}"/>')
        # Few points are seen better as such.
        if len(line) <= 12:
            parts += [
                f'<circle class="dot tone-{number % N_TONES}" cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="3"/>'
                for x, y in line
            ]
    legend, height = _legend(list(series), HEIGHT + 4)
    told = "; ".join(f"{name}: {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in series.items() if line)
    return _svg(title, f"{y_label} by {x_label}. {told}.", height, [*parts, *legend])


def bars(title: str, groups: Mapping[str, Sequence[Bar]], *, x_label: str) -> Markup:
    """Horizontal bars from 0 to 100: for each label a bar of each group, with its interval."""
    labels = list(dict.fromkeys(bar.label for group in groups.values() for bar in group))
    if not labels:
        return Markup("")
    thickness, gap = 13.0, 10.0
    row = thickness * len(groups) + gap
    bottom = TOP + row * len(labels)
    left = min(150.0, 16 + _CHAR * max(map(len, labels)))
    scale = (WIDTH - left - 52) / 100
    parts = []
    for tick in range(0, 101, 20):
        x = left + tick * scale
        parts += [f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom:.1f}"/>']
        parts += [_text(x, bottom + 15, str(tick), "middle")]
    parts.append(_text(left + 50 * scale, bottom + 33, x_label, "middle"))
    for group_number, group in enumerate(groups.values()):
        for bar in group:
            y = TOP + gap / 2 + row * labels.index(bar.label) + thickness * group_number
            middle = y + thickness / 2 - 1
            parts.append(
                f'<rect class="bar tone-{group_number % N_TONES}" x="{left:.1f}" y="{y:.1f}" '
                f'width="{max(bar.value * scale, 0.5):.1f}" height="{thickness - 2:.1f}"/>'
            )
            end = bar.value
            if bar.low is not None and bar.high is not None:
                low, high, end = left + bar.low * scale, left + bar.high * scale, bar.high
                parts.append(
                    f'<path class="whisker" d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 3:.1f}v6'
                    f'M{high:.1f} {middle - 3:.1f}v6"/>'
                )
            parts.append(_text(left + end * scale + 5, middle + 4, f"{bar.value:.1f}", "start", small=True))
    for number, label in enumerate(labels):
        cut = label if len(label) <= 18 else f"{label[:17]}…"
        parts.append(_text(left - 6, TOP + row * (number + 0.5) + 4, cut, "end"))
    legend, height = _legend(list(groups), bottom + 46, of_bars=True) if len(groups) > 1 else ([], bottom + 40)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{bar.label} {bar.value:.1f}" for bar in group) for name, group in groups.items()
    )
    return _svg(title, f"{x_label}. {told}.", height, [*parts, *legend])


def reliability(title: str, found: Calibration) -> Markup:
    """The share of right answers by score, with the diagonal of perfect calibration; bars below show how many."""
    if not found.count:
        return Markup("")
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    plot = _Plot((0.0, 1.0), (0.0, 1.0))
    parts = plot.axes(ticks, ticks, "score", "share that is right")
    parts.append(
        f'<line class="diagonal" x1="{plot.x(0):.1f}" y1="{plot.y(0):.1f}" x2="{plot.x(1):.1f}" y2="{plot.y(1):.1f}"/>'
    )
    most = max(one.count for one in found.bins)
    for one in found.bins:
        width = plot.x(one.high) - plot.x(one.low) - 4
        height = (plot.y(0) - plot.y(0.35)) * one.count / most
        parts.append(
            f'<rect class="count" x="{plot.x(one.low) + 2:.1f}" y="{plot.y(0) - height:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}"/>'
        )
    sound = [one for one in found.bins if one.count >= FEW]
    places = " ".join(f"{plot.x(one.confidence):.1f},{plot.y(one.accuracy):.1f}" for one in sound)
    parts.append(f'<polyline class="line tone-0" points="{places}"/>')
    parts += [
        f'<circle class="dot tone-0{"" if one.count >= FEW else " few"}" cx="{plot.x(one.confidence):.1f}" '
        f'cy="{plot.y(one.accuracy):.1f}" r="4"/>'
        for one in found.bins
    ]
    told = "; ".join(f"{one.confidence:.2f}: {one.accuracy:.2f} of {one.count:,}" for one in found.bins)
    return _svg(title, f"Share of right answers by mean score of each bin. {told}.", HEIGHT, parts)


class _Plot:
    """A field of numbers: where they lie in the picture."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float]) -> None:
        self._xs, self._ys = xs, ys

    def x(self, value: float) -> float:
        low, high = self._xs
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self._ys
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str) -> list[str]:
        """Grid, numbers and names."""
        low, high = HEIGHT - BOTTOM, TOP
        parts = []
        for tick in x_ticks:
            parts.append(f'<line class="grid" x1="{self.x(tick):.1f}" y1="{low}" x2="{self.x(tick):.1f}" y2="{high}"/>')
            parts.append(_text(self.x(tick), low + 16, _number(tick), "middle"))
        for tick in y_ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
            parts.append(_text(LEFT - 6, y + 4, _number(tick), "end"))
        middle = (low + high) / 2
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"))
        parts.append(
            f'<text x="13" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 13 {middle:.1f})">'
            f"{shown(y_label)}</text>"
        )
        return parts


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose two others."""
    if high - low < 1e-12:
        low, high = low - max(abs(low), 1.0) / 10, high + max(abs(high), 1.0) / 10
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _text(x: float, y: float, text: str, anchor: str, *, small: bool = False) -> str:
    look = ' class="small"' if small else ""
    return f'<text{look} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{shown(text)}</text>'


def _legend(names: Sequence[str], top: float, *, of_bars: bool = False) -> tuple[list[str], float]:
    """Signs and names in as many lines as they need; the parts, and where they end."""
    parts, x, y = [], 10.0, top + 8
    for number, name in enumerate(names):
        cut = name if len(name) <= 50 else f"{name[:49]}…"
        width = 34 + _CHAR * len(cut)
        if x + width > WIDTH and x > 10:
            x, y = 10.0, y + 19
        look = f'class="line tone-{number % N_TONES}" stroke-dasharray="{DASHES[number % len(DASHES)]}"'
        if of_bars:
            parts.append(f'<rect class="bar tone-{number % N_TONES}" x="{x}" y="{y - 10}" width="22" height="11"/>')
        else:
            parts.append(f'<line {look} x1="{x:.0f}" y1="{y - 4:.0f}" x2="{x + 22:.0f}" y2="{y - 4:.0f}"/>')
        parts.append(_text(x + 27, y, cut, "start"))
        x += width + 12
    return parts, y + 8


def _svg(title: str, description: str, height: float, parts: Sequence[str]) -> Markup:
    body = "".join(parts)
    return Markup(
        f'<svg role="img" viewBox="0 0 {WIDTH:.0f} {height:.0f}" aria-label="{shown(title)}">'
        f"<title>{shown(title)}</title><desc>{shown(description)}</desc>{body}</svg>"
    )
