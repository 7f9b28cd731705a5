"""How every picture looks, and how it is saved. matplotlib takes a second to import, so functions import it."""

import logging
import math
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from gliofed.server.report.series import Series
from gliofed.shared.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Dash = Literal["-", "--"]

DPI = 150
MARKS = 20
"""Markers along a line, at most; they tell runs apart where colours repeat."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito 2008, safe for the colour-blind; without the yellow, which is faint on white."""
MARKERS = ("o", "s", "^", "D", "v", ">")
"""One fewer than the colours, so that 42 runs have a pair of their own."""
DASHES: tuple[Dash, Dash] = ("-", "--")
GREY = "#555555"
PALE = "#BBBBBB"
BLACK = "#000000"


def new_figure(title: str, note: str, width: float, height: float = 4.2) -> "Figure":
    """A figure in inches with its title and note above what is to be drawn."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # else it says at length where no home can be written
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI)
    lines = wrap(re.sub(r",(?=\S)", ", ", title), int(width * 9), break_on_hyphens=False) or [""]
    below = 0.1 + 0.22 * len(lines)
    figure.text(0.5, 1 - 0.1 / height, "\n".join(lines), ha="center", va="top", fontsize=12, parse_math=False)
    notes = wrap(note, int(width * 12), break_on_hyphens=False)
    text = "\n".join(notes)
    figure.text(0.5, 1 - (below + 0.03) / height, text, ha="center", va="top", fontsize=9, color=GREY, parse_math=False)
    head = (below + 0.05 + 0.15 * len(notes) if notes else below) / height
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - head), w_pad=0.1)
    return figure


def look(number: int, colours: Sequence[str] = COLOURS) -> tuple[str, str]:
    """Colour and marker of a line, by its number; with all colours 42 are different."""
    turn = number // len(colours) if len(colours) == len(MARKERS) else 0  # else the same pairs would come again
    return colours[number % len(colours)], MARKERS[(number + turn) % len(MARKERS)]


def handle(colour: str, marker: str, dash: Dash = "-") -> "Line2D":
    """A line without points, as a legend shows it."""
    from matplotlib.lines import Line2D

    face = colour if dash == "-" else "white"
    return Line2D([], [], color=colour, marker=marker, markersize=4, markerfacecolor=face, linestyle=dash)


def draw_line(
    axes: "Axes",
    series: Series,
    colour: str,
    marker: str,
    dash: Dash = "-",
    label: str | None = None,
    thin: bool = False,
) -> "Line2D | None":
    """A line over the rounds, with a gap at each NaN; nothing of a series without any value. `thin`: one of many."""
    if all(math.isnan(value) for value in series.values()):
        return None
    values = list(series.values())
    line = handle(colour, marker, dash)
    line.set(data=(list(series), values), label=label, markevery=_marks(values))
    if thin:
        line.set(alpha=0.3, linewidth=0.8, markersize=2, zorder=1.5)
    axes.add_line(line)
    axes.autoscale_view()
    return line


def _marks(values: Sequence[float]) -> list[int]:
    """Where a line has its markers: at most MARKS, and wherever a value stands alone and has no line."""
    gap = [math.nan, *values, math.nan]
    alone = {at for at in range(len(values)) if math.isnan(gap[at]) and math.isnan(gap[at + 2])}
    return sorted(alone.union(range(0, len(values), math.ceil(len(values) / MARKS))))


def over_rounds(axes: "Axes", rounds: Sequence[int], quantity: str, least: float = 0.3) -> None:
    """Axes of these rounds, which are whole numbers, with room of at least `least` rounds at both ends."""
    from matplotlib.ticker import MaxNLocator

    pad = max(least, 0.02 * (max(rounds) - min(rounds)))
    axes.set_xlim(min(rounds) - pad, max(rounds) + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    frame(axes, "round", quantity)
    if not (axes.lines or axes.patches):
        axes.text(0.5, 0.5, "none reported", transform=axes.transAxes, ha="center", color=GREY)


def frame(axes: "Axes", x: str, y: str, grid: Literal["both", "x", "y"] = "both") -> None:
    """Axes as every picture has them: labels, a light grid, nothing above and on the right."""
    axes.set(xlabel=x, ylabel=y)
    axes.grid(axis=grid, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write the picture, PNG or SVG by its suffix, whole or not at all; the same events give the same bytes."""
    import matplotlib

    if engine := figure.get_layout_engine():  # once: matplotlib would draw all, to find places, for each file anew
        engine.execute(figure)
        figure.set_layout_engine(None)
    kind, picture = path.suffix.removeprefix("."), BytesIO()
    # Text stays text, to be searched and edited; names of parts come from the salt, not from chance.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gliofed"}):
        figure.savefig(picture, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    write_bytes(path, picture.getvalue())


def save_plot(figure: "Figure", folder: Path, name: str) -> None:
    """Write NAME.png and NAME.svg."""
    for kind in ("png", "svg"):
        save_figure(figure, folder / f"{name}.{kind}")


def in_words(metric: str) -> str:
    """A metric or a region as an axis names it.

    >>> in_words("dice"), in_words("hd95"), in_words("auc"), in_words("mean_error")
    ('Dice', 'HD95, mm', 'AUC', 'Mean error')
    """
    if metric == "hd95":
        return "HD95, mm"
    short = len(metric) <= 3 or any(map(str.isdigit, metric))
    return metric.upper() if short else metric.replace("_", " ").capitalize()
