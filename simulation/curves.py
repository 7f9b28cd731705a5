"""Pictures of what the rounds did: losses and the headline metric, of one run or of all runs of a sweep."""

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from textwrap import fill, wrap
from typing import TYPE_CHECKING, Any, Literal

from gliofed.shared.files import write_bytes

if TYPE_CHECKING:  # matplotlib takes a second to import, and a run that stops early draws nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Events = Sequence[Mapping[str, Any]]
Series = dict[int, float]
"""A value a round, NaN where there was none; a NaN makes a gap, a round that is not there does not."""
Dash = Literal["-", "--"]

DPI = 150
MOST_SITES = 8
"""Sites that have a line of their own; with more, only the mean is legible."""
MOST_INSIDE = 10
"""Rows of run names that a legend inside the axes can hold."""
LEGEND_ROWS = 24
MARKS = 20
"""Markers along a line, at most; they tell runs apart where colours repeat."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito 2008, safe for the colour-blind; without the yellow, which is faint on white."""
MARKERS = ("o", "s", "^", "D", "v", ">")
"""One fewer than the colours, so that 42 runs have a pair of their own."""
DASHES: tuple[Dash, Dash] = ("-", "--")
GREY = "#555555"


def training_loss(events: Events) -> Series:
    """Mean of the counted sites' training losses, weighted as their updates are."""
    means = {}
    for event in _finished(events):
        known = [(_loss(line), _weight(line)) for line in event["sites"].values()]
        known = [(loss, patients) for loss, patients in known if math.isfinite(loss)]
        total = sum(patients for _, patients in known)
        means[event["round"]] = sum(loss * n for loss, n in known) / total if known else math.nan
    return means


def site_losses(events: Events) -> dict[str, Series]:
    """Each site's training loss; NaN where the site was asked and did not count."""
    losses: dict[str, Series] = {}
    for event in _finished(events):
        for site, line in event["sites"].items():
            if line["status"] != "not_invited":
                losses.setdefault(site, {})[event["round"]] = _loss(line)
    return dict(sorted(losses.items()))


def validation(events: Events, metric: str) -> Series:
    """`metric` over all validation patients; rounds that were not evaluated are not there."""
    values = {event["round"]: event["global"].get(metric) for event in _finished(events) if event["global"]}
    return {round: math.nan if value is None else value for round, value in values.items()}


def short_labels(labels: Sequence[str]) -> list[str]:
    """Only what differs between the names of a sweep's runs; the whole names where that would not tell them apart.

    >>> short_labels(["0-experiment=cnn1,seed=1", "1-experiment=cnn2,seed=1"])
    ['experiment=cnn1', 'experiment=cnn2']
    """
    # A comma also parts the values of a list, as in channels=8,16.
    parts = [re.split(r",(?=[^,]*=)", re.sub(r"^\d+-", "", label)) for label in labels]
    common = set(parts[0]).intersection(*parts) if parts else set()
    short = [", ".join(word for word in of_one if word not in common) for of_one in parts]
    return short if all(short) and len(set(short)) == len(short) else list(labels)


def draw_run(events: Events, path: Path, title: str, metric: str, note: str = "") -> None:
    """Write a PNG of one run: losses on the left, `metric` with its interval on the right, against rounds.

    The interval is drawn where the events hold metric_low and metric_high. `note` stands under the title. Nothing is
    written of a run that finished no round.
    """
    if not _finished(events):
        return
    figure = new_figure(title, note, width=10.0)
    left, right = figure.subplots(1, 2)
    sites = [losses for losses in site_losses(events).values() if not all(map(math.isnan, losses.values()))]
    if 1 < len(sites) <= MOST_SITES:
        for number, losses in enumerate(sites):
            label = None if number else "training, each site"
            _line(left, losses, 0, label, pale=True)
    _line(left, training_loss(events), 0, "training")
    _line(left, validation(events, "loss"), 1, "validation", dash="--")
    _finish(left, events, "loss")
    _band(right, validation(events, f"{metric}_low"), validation(events, f"{metric}_high"))
    _line(right, validation(events, metric), 2, "validation")
    _finish(right, events, _name(metric))
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9, handlelength=2.8)
    save_figure(figure, path)


def draw_runs(runs: Mapping[str, Events], folder: Path, metric: str, note: str = "") -> None:
    """Write losses.png and METRIC.png of several runs, a colour a run, into `folder`.

    Nothing is written of runs that finished no round.
    """
    runs = {label: events for label, events in runs.items() if _finished(events)}
    if not runs:
        return
    losses: dict[str, Callable[[Events], Series]] = {
        "training": training_loss,
        "validation": partial(validation, metric="loss"),
    }
    save_figure(_compare(runs, losses, "Training and validation loss", "loss", note), folder / "losses.png")
    name, scores = _name(metric), {"": partial(validation, metric=metric)}
    save_figure(_compare(runs, scores, f"{name} on validation patients", name, note), folder / f"{metric}.png")


def _finished(events: Events) -> list[Mapping[str, Any]]:
    return [event for event in events if event["event"] == "round"]


def _weight(line: Mapping[str, Any]) -> float:
    """Its share in the fold, or its patients; private updates of whole sites have neither, and all weigh the same."""
    share = line.get("share")
    return float(line["patients"] or 1) if share is None else float(share)


def _loss(line: Mapping[str, Any]) -> float:
    """A counted site's training loss; NaN where it did not count, or its loss was not finite."""
    loss = (line["train"] or {}).get("loss") if line["status"] == "counted" else None
    return math.nan if loss is None else float(loss)


def _name(metric: str) -> str:
    return metric.replace("_", " ").capitalize()


def _compare(
    runs: Mapping[str, Events], series: Mapping[str, Callable[[Events], Series]], title: str, quantity: str, note: str
) -> "Figure":
    """One plot of all runs; `series` by what the legend calls its lines: the first solid, the second dashed."""
    styles = list(filter(None, series))
    labels = [fill(label, 32) for label in short_labels(list(runs))] + styles
    rows = sum(label.count("\n") + 1 for label in labels)
    columns = math.ceil(rows / LEGEND_ROWS) if rows > MOST_INSIDE + len(styles) else 0
    figure = new_figure(title, note, width=8.0 + 2.5 * columns, height=5.0)
    axes = figure.subplots()
    for number, events in enumerate(runs.values()):
        for dash, values in zip(DASHES, series.values(), strict=False):
            _line(axes, values(events), number, dash=dash)
    _finish(axes, [event for events in runs.values() for event in events], quantity)
    lines = [_handle(*_look(number), "-") for number in range(len(runs))]
    lines += [_handle(GREY, MARKERS[0], dash) for dash, _ in zip(DASHES, styles, strict=False)]
    beside = {"fontsize": 8, "ncols": columns, "loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(lines, labels, frameon=False, handlelength=2.8, **(beside if columns else {"fontsize": 9}))
    return figure


def new_figure(title: str, note: str, width: float, height: float = 4.2) -> "Figure":
    """A figure in inches with its title and note above what is to be drawn."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # else it says at length where no home can be written
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI)
    lines = wrap(re.sub(r",(?=\S)", ", ", title), int(width * 9), break_on_hyphens=False) or [""]
    below = 0.1 + 0.22 * len(lines)
    figure.text(0.5, 1 - 0.1 / height, "\n".join(lines), ha="center", va="top", fontsize=12, parse_math=False)
    if note:
        figure.text(0.5, 1 - (below + 0.03) / height, note, ha="center", va="top", fontsize=9, color=GREY)
    head = (below + 0.2 * bool(note)) / height
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - head), w_pad=0.1)
    return figure


def _look(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def _handle(colour: str, marker: str, dash: Dash) -> "Line2D":
    from matplotlib.lines import Line2D

    face = colour if dash == "-" else "white"
    return Line2D([], [], color=colour, marker=marker, markersize=4, markerfacecolor=face, linestyle=dash)


def _line(
    axes: "Axes", series: Series, number: int, label: str | None = None, dash: Dash = "-", pale: bool = False
) -> None:
    if all(math.isnan(value) for value in series.values()):
        return
    values = list(series.values())
    line = _handle(*_look(number), dash)
    line.set(data=(list(series), values), label=label, markevery=_marks(values))
    if pale:
        line.set(alpha=0.3, linewidth=0.8, markersize=2, zorder=1.5)
    axes.add_line(line)
    axes.autoscale_view()


def _marks(values: Sequence[float]) -> list[int]:
    """Where a line has its markers: at most MARKS, and wherever a value stands alone and has no line."""
    gap = [math.nan, *values, math.nan]
    alone = {at for at in range(len(values)) if math.isnan(gap[at]) and math.isnan(gap[at + 2])}
    return sorted(alone.union(range(0, len(values), math.ceil(len(values) / MARKS))))


def _band(axes: "Axes", low: Series, high: Series) -> None:
    """The interval of the metric: a band, or a bar where there is but one round."""
    both = [(round, value, high[round]) for round, value in low.items() if not math.isnan(value + high[round])]
    if len(both) == 1:
        axes.vlines(*both[0], colors=COLOURS[2], alpha=0.4, linewidth=4, label="interval")
    elif both:
        rounds, lows, highs = zip(*both, strict=True)
        axes.fill_between(rounds, lows, highs, color=COLOURS[2], alpha=0.15, linewidth=0, label="interval")


def _finish(axes: "Axes", events: Events, quantity: str) -> None:
    """Axes of rounds, which are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    rounds = [event["round"] for event in _finished(events)]
    pad = max(0.3, 0.02 * (max(rounds) - min(rounds)))
    axes.set_xlim(min(rounds) - pad, max(rounds) + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    frame(axes, "round", quantity)
    if not axes.lines:
        axes.text(0.5, 0.5, "none reported", transform=axes.transAxes, ha="center", color=GREY)


def frame(axes: "Axes", x: str, y: str, grid: Literal["both", "x"] = "both") -> None:
    """Axes as every picture has them: labels, a light grid, nothing above and on the right."""
    axes.set(xlabel=x, ylabel=y)
    axes.grid(axis=grid, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write the picture whole or not at all; the same events give the same bytes."""
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    write_bytes(path, picture.getvalue())
