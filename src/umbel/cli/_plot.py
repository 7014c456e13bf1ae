"""A picture of every metric of a run, a panel each, as SVG: text, no drawing library, opens in any browser."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from umbel.cli._text import safe

Series = Mapping[int, float]

_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 22, 42, 46
_COLORS = {"train": "#2563eb", "evaluate": "#c2410c", "central": "#047857"}
_OTHER = "#6d28d9"
_LARGEST = sys.float_info.max
_STYLE = (
    "text{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:12px;fill:#475569}"
    ".title{font-size:14px;font-weight:600;fill:#0f172a}.head{font-size:17px;font-weight:600;fill:#0f172a}"
    ".grid{stroke:#e2e8f0;stroke-width:1}.axis{stroke:#94a3b8;stroke-width:1}"
)


@dataclass(frozen=True)
class Panel:
    """One metric: who measured it (``train``, ``evaluate`` or ``central``), its name, its value by round."""

    source: str
    name: str
    series: Series


def plot(panels: Sequence[Panel], title: str) -> str:
    """Return an SVG document with one panel a metric, two in a row; rounds without a finite value leave a gap."""
    columns = 2 if len(panels) > 1 else 1
    rows = max(1, math.ceil(len(panels) / columns))
    width, height = columns * _WIDTH, rows * _HEIGHT + 48
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{_text(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text class="head" x="20" y="32">{_text(title)}</text>',
    ]
    for i, panel in enumerate(panels):
        x, y = (i % columns) * _WIDTH, 48 + (i // columns) * _HEIGHT
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
    if not panels:
        parts.append('<text x="20" y="80">no metrics were reported</text>')
    return "\n".join([*parts, "</svg>", ""])


def _text(text: str) -> str:
    return escape(safe(text))


@dataclass(frozen=True)
class _Scale:
    """A linear axis from ``low`` to ``high`` (values) drawn from ``start`` to ``end`` (pixels)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        # Halves, because high - low may overflow for values near the end of float64.
        share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return round(self.start + share * (self.end - self.start), 2)


def _panel(panel: Panel) -> Iterator[str]:
    color = _COLORS.get(panel.source, _OTHER)
    finite = {number: value for number, value in panel.series.items() if math.isfinite(value)}
    last = f"{list(finite.values())[-1]:.4g}" if finite else ""
    yield (
        f'<text class="title" x="{_LEFT}" y="24">{_text(_short(panel.name))}'
        f'<tspan dx="8" style="fill:{color}">{last}</tspan></text>'
    )
    caption = _CAPTIONS.get(panel.source, panel.source)
    yield f'<text x="{_WIDTH - _RIGHT}" y="24" text-anchor="end">{_text(caption)}</text>'
    if not finite:
        yield f'<text x="{_LEFT}" y="{_HEIGHT // 2}">no finite value in {len(panel.series)} rounds</text>'
        return
    ticks = nice_ticks(min(finite.values()), max(finite.values()))
    rounds = list(panel.series)
    across = _Scale(min(rounds), max(*rounds, min(rounds) + 1), _LEFT, _WIDTH - _RIGHT)
    up = _Scale(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    yield from _axes(across, up, ticks)
    yield from _curve(panel.series, finite, across, up, color)


_CAPTIONS = {"train": "while training", "evaluate": "on the nodes", "central": "on the server"}
_LONGEST_NAME = 20


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _axes(across: _Scale, up: _Scale, ticks: Sequence[float]) -> Iterator[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for tick in ticks:
        y = up(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:.6g}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    for number in _round_ticks(int(across.low), int(across.high)):
        x = across(number)
        yield f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{number}</text>'
    yield f'<text x="{(_LEFT + right) / 2}" y="{bottom + 36}" text-anchor="middle">round</text>'


def _curve(series: Series, finite: Series, across: _Scale, up: _Scale, color: str) -> Iterator[str]:
    for stretch in _stretches(series):
        points = " ".join(f"{across(number)},{up(series[number])}" for number in stretch)
        yield f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round"/>'
    few = len(finite) <= 40  # noqa: PLR2004 - beyond that dots hide the line
    for number, value in finite.items() if few else list(finite.items())[-1:]:
        yield f'<circle cx="{across(number)}" cy="{up(value)}" r="2.5" fill="{color}"/>'


def _stretches(series: Series) -> Iterator[list[int]]:
    stretch: list[int] = []
    for number, value in series.items():
        if math.isfinite(value):
            stretch.append(number)
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) that enclose ``low`` and ``high``."""
    largest = max(abs(low), abs(high))
    if high / 2 - low / 2 <= largest * 1e-7:  # labels have six digits: what they cannot tell apart is drawn as flat
        margin = largest * 0.1 or 1.0
        low, high = max(low - margin, -_LARGEST), min(high + margin, _LARGEST)
    span = high / 2 - low / 2
    raw = max(2 * (span / most), 1e-300)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [number * step for number in range(first, last + 1)]
    return [tick for tick in ticks if math.isfinite(tick)]


def _round_ticks(low: int, high: int) -> list[int]:
    step = max(1, round(nice_ticks(0, max(1, high - low))[1]))
    return [low, *(number for number in range(low - low % step + step, high + 1, step) if number > low + step // 3)]
