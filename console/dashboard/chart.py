"""Geometry of a stacked bar chart, drawn as SVG by the server.

X coordinates are percentages, so that the chart fits any width; y coordinates are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from core.money import NANOS_PER_USD, format_exact

TOP_PX, PLOT_PX = 22, 200
BASE_PX = TOP_PX + PLOT_PX
GRID_STEPS = 4
MAX_TICKS = 6
GAP_PX = 1.5
BAR_SHARE = 0.66
MAX_BAR_WIDTH_PERCENT = 6.0
ROUND_STEPS = (10, 20, 25, 50, 100)


class Series(NamedTuple):
    """One colour of the chart. `look` is the number of the colour in the style sheet, 1 to 5; 5 is “Other”."""

    name: str
    cost_nanos: int
    percent: str
    look: int


class ChartColumn(NamedTuple):
    """The data of one bar (an hour, day or week): the cost of each series; `url` zooms in where possible."""

    label: str
    tick: str
    costs_nanos: list[int]
    url: str = ""

    @property
    def cost_nanos(self) -> int:
        return sum(self.costs_nanos)


class GridLine(NamedTuple):
    label: str
    y: str


class Block(NamedTuple):
    look: int
    y: str
    height: str


class Tick(NamedTuple):
    label: str
    is_minor: bool


@dataclass(frozen=True)
class Bar:
    column: ChartColumn
    place: str
    slot: str
    x: str
    width: str
    middle: str
    blocks: list[Block]
    tick: Tick | None


@dataclass(frozen=True)
class Chart:
    series: list[Series]
    lines: list[GridLine]
    bars: list[Bar]


def stacked(series: list[Series], columns: Sequence[ChartColumn]) -> Chart:
    step = _step(max((column.cost_nanos for column in columns), default=0))
    lines = [
        GridLine(_grid_label(step * n), _px(BASE_PX - PLOT_PX * n / GRID_STEPS)) for n in range(GRID_STEPS, -1, -1)
    ]
    every = -(-len(columns) // MAX_TICKS)
    bars = [
        _bar(
            series, column, place=place, of=len(columns), tick=_tick(column, place, every), top_nanos=step * GRID_STEPS
        )
        for place, column in enumerate(columns)
    ]
    return Chart(series, lines, bars)


def _bar(series: list[Series], column: ChartColumn, *, place: int, of: int, tick: Tick | None, top_nanos: int) -> Bar:
    slot = 100 / of
    width = min(slot * BAR_SHARE, MAX_BAR_WIDTH_PERCENT)
    middle = (place + 0.5) * slot
    ends = [BASE_PX - PLOT_PX * height / top_nanos for height in accumulate(column.costs_nanos, initial=0)]
    blocks = [
        Block(one.look, _px(end), _px(max(start - end - GAP_PX, 0.5)))
        for one, cost, start, end in zip(series, column.costs_nanos, ends[:-1], ends[1:], strict=True)
        if cost
    ]
    return Bar(
        column=column,
        place=_svg_percent(place * slot),
        slot=_svg_percent(slot),
        x=_svg_percent(middle - width / 2),
        width=_svg_percent(width),
        middle=_svg_percent(middle),
        blocks=blocks,
        tick=tick,
    )


def _tick(column: ChartColumn, place: int, every: int) -> Tick | None:
    # Minor ticks are hidden on narrow screens.
    return Tick(column.tick, is_minor=place // every % 2 == 1) if place % every == 0 else None


def _step(highest_nanos: int) -> int:
    """Return the distance of the grid lines: the smallest round amount whose GRID_STEPS-fold covers the highest bar."""
    least = max(1, -(-highest_nanos // GRID_STEPS))
    scale: int = 10 ** (len(str(least)) - 1)
    return next(-(-scale * times // 10) for times in ROUND_STEPS if -(-scale * times // 10) >= least)


def _grid_label(nanos: int) -> str:
    return f"${nanos // NANOS_PER_USD:,}" if nanos % NANOS_PER_USD == 0 else f"${format_exact(nanos)}"


def _px(length: float) -> str:
    return f"{length:.2f}"


def _svg_percent(share: float) -> str:
    return f"{share:.3f}%"
