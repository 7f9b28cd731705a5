"""Line charts for a page: where each line and tick lies, in units of the picture; the template draws them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

WIDTH, HEIGHT = 400.0, 230.0
"""Of a picture. Its letters are 11 high, legible on a telephone, where such a picture is about 370 pixels wide."""
LEFT, RIGHT, TOP, BOTTOM = 50.0, 390.0, 10.0, 196.0
"""Edges of the plot in it."""
MOST_LINES = 8
"""Sites that have a line each; of more, the range and the median are shown, and one site that the reader picks."""
MOST_DOTS = 24

Series = Mapping[int, float]
"""A value a round; NaN makes a gap."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line to draw."""

    label: str
    values: Series
    colour: int
    """Number of a colour of page.css, 0 to 7."""
    style: Literal["plain", "dashed", "picked"] = "plain"
    """picked: only seen while the reader has picked its label."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A line in units of the picture."""

    label: str
    colour: int
    style: str
    paths: list[str]
    """Points of each unbroken part, as SVG has them: "x,y x,y"."""
    dots: list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One picture."""

    title: str
    lines: list[Drawn]
    """But for those to pick, which the script draws when somebody does."""
    xs: list[tuple[float, str]]
    """Ticks: place and text."""
    ys: list[tuple[float, str]]
    band: str | None = None
    """Outline of the range of all sites."""
    rule: tuple[float, str] | None = None
    """A level to compare with: height and text."""
    hover: dict[str, Any] = field(default_factory=dict)
    """What the script shows at the pointer: rounds, their places, the scale of the heights (a value, its height, and
    the height of 1), and rows of a label, a colour, a style and values."""
    picks: list[str] = field(default_factory=list)
    """Sites that the reader can pick."""
    note: str = ""
    across: str = "round"
    """What is counted from left to right."""


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    note: str = "",
    across: str = "round",
    low: float | None = None,
    rule: tuple[float, str] | None = None,
    band: tuple[Series, Series] | None = None,
) -> Chart | None:
    """Draw lines over rounds; None where no line has a value. `low` is what the axis begins with, `rule` a level."""
    lines = [line for line in lines if any(map(math.isfinite, line.values.values()))]
    if not lines:
        return None
    rounds = sorted({round for line in lines for round in line.values})
    known = [value for line in lines for value in line.values.values() if math.isfinite(value)]
    known += [value for side in band or () for value in side.values() if math.isfinite(value)]
    ticks = nice_ticks(min([*known, *([low] if low is not None else [])]), max([*known, *([rule[0]] if rule else [])]))
    x, y = _scale(rounds[0], rounds[-1], LEFT + 6, RIGHT - 6), _scale(ticks[0], ticks[-1], BOTTOM, TOP)
    return Chart(
        title=title,
        lines=[_drawn(line, x, y) for line in lines if line.style != "picked"],
        xs=[(x(round), f"{round}") for round in whole_ticks(rounds[0], rounds[-1])],
        ys=[(y(tick), f"{tick:.6g}") for tick in ticks],
        band=_outline(*band, x, y) if band else None,
        rule=(y(rule[0]), rule[1]) if rule else None,
        hover={
            "across": across,
            "rounds": rounds,
            "x": [x(round) for round in rounds],
            "y": [y.low, y.start, y.factor],
            "rows": [
                [line.label, line.colour, line.style, [_shown(line.values.get(round)) for round in rounds]]
                for line in lines
            ],
        },
        picks=[line.label for line in lines if line.style == "picked"],
        note=note,
        across=across,
    )


def site_chart(title: str, sites: Mapping[str, Series], overall: Line | None = None, **more: Any) -> Chart | None:
    """Draw a line a site, or of many sites their range and median; `overall` is drawn with them."""
    first = [overall] if overall else []
    sites = {site: values for site, values in sites.items() if any(map(math.isfinite, values.values()))}
    if len(sites) <= MOST_LINES:
        return chart(
            title, [*(Line(label=s, values=v, colour=n) for n, (s, v) in enumerate(sites.items())), *first], **more
        )
    spread = {
        round: sorted(known)
        for round in sorted({round for values in sites.values() for round in values})
        if (known := [v for values in sites.values() if math.isfinite(v := values.get(round, math.nan))])
    }
    ends = {round: known[0] for round, known in spread.items()}, {round: known[-1] for round, known in spread.items()}
    lines = [
        *first,
        Line(label="median site", values={round: median(known) for round, known in spread.items()}, colour=0),
        Line(label="lowest site", values=ends[0], colour=7, style="dashed"),
        Line(label="highest site", values=ends[1], colour=7, style="dashed"),
        *(Line(label=site, values=values, colour=1, style="picked") for site, values in sites.items()),
    ]
    return chart(title, lines, band=ends, **more)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose a range.

    >>> nice_ticks(0.83, 0.97), nice_ticks(3.0, 3.0)
    ([0.8, 0.85, 0.9, 0.95, 1.0], [2.0, 3.0, 4.0])
    """
    if high - low < 1e-12 * max(1.0, abs(high)):
        pad = abs(high) / 3 or 1.0
        low, high, count = low - pad, high + pad, 2
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def whole_ticks(first: int, last: int, most: int = 8) -> list[int]:
    """Rounds to name on an axis.

    >>> whole_ticks(1, 4), whole_ticks(1, 100)
    ([1, 2, 3, 4], [1, 20, 40, 60, 80, 100])
    """
    steps = (each * 10**power for power in range(7) for each in (1, 2, 5))
    step = next(each for each in steps if (last - first) / each < most)
    inside = range(-(-first // step) * step, last + 1, step)
    return sorted({first, *(each for each in inside if each - first > step / 2 or each == first)})


def _scale(low: float, high: float, start: float, end: float) -> "_Scale":
    return _Scale(low, start, (end - start) / (high - low) if high > low else None, (start + end) / 2)


@dataclass(frozen=True)
class _Scale:
    """From a value to its place."""

    low: float
    start: float
    factor: float | None
    middle: float

    def __call__(self, value: float) -> float:
        return round(self.middle if self.factor is None else self.start + (value - self.low) * self.factor, 1)


def _drawn(line: Line, x: _Scale, y: _Scale) -> Drawn:
    parts: list[list[tuple[float, float]]] = [[]]
    for number, value in sorted(line.values.items()):
        if math.isfinite(value):
            parts[-1].append((x(number), y(value)))
        elif parts[-1]:
            parts.append([])
    paths = [" ".join(f"{a},{b}" for a, b in part) for part in parts if len(part) > 1]
    points = [point for part in parts for point in part]
    alone = [part[0] for part in parts if len(part) == 1]
    dots = points if len(points) <= MOST_DOTS else alone
    return Drawn(label=line.label, colour=line.colour % 8, style=line.style, paths=paths, dots=dots)


def _outline(low: Series, high: Series, x: _Scale, y: _Scale) -> str:
    there = [round for round in sorted(low) if math.isfinite(low[round] + high.get(round, math.nan))]
    outline = [(x(each), y(high[each])) for each in there] + [(x(each), y(low[each])) for each in reversed(there)]
    return " ".join(f"{a},{b}" for a, b in outline)


def _shown(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)
