"""Figures of several runs together: a colour a run, or a colour for all runs that differ only in the seed."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING

from gliofed.server.report.plots.style import (
    DASHES,
    GREY,
    MARKERS,
    draw_line,
    handle,
    in_words,
    look,
    new_figure,
    over_rounds,
    save_plot,
)
from gliofed.server.report.series import Events, Series, axis, finished, training_loss, validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_INSIDE = 10
"""Rows of run names that a legend inside the axes can hold."""
LEGEND_ROWS = 24


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed, or one run."""

    label: str
    runs: tuple[Events, ...]


def short_labels(labels: Sequence[str]) -> list[str]:
    """Only what differs between the names of a sweep's runs; the whole names where that would not tell them apart.

    >>> short_labels(["0-experiment=cnn1,seed=1", "1-experiment=cnn2,seed=1"])
    ['experiment=cnn1', 'experiment=cnn2']
    """
    parts = [_words(label) for label in labels]
    common = set(parts[0]).intersection(*parts) if parts else set()
    short = [", ".join(word for word in of_one if word not in common) for of_one in parts]
    return short if all(short) and len(set(short)) == len(short) else list(labels)


def by_seed(runs: Mapping[str, Events]) -> list[Group]:
    """Runs whose names differ only in the seed as one group, named after what its seeds have in common.

    >>> runs = {"0-a=1,seed=0": [], "1-a=1,seed=1": [], "2-a=2,seed=0": []}
    >>> [(group.label, len(group.runs)) for group in by_seed(runs)]
    [('a=1, mean of 2 seeds', 2), ('a=2', 1)]
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for label in runs:
        groups.setdefault(tuple(word for word in _words(label) if not word.startswith("seed=")), []).append(label)
    of_one = {key: labels for key, labels in groups.items() if len({*map(_seed, labels)}) == len(labels)}
    if all(len(labels) == 1 for labels in of_one.values()):  # nothing to join
        return [Group(short, (events,)) for short, events in zip(short_labels([*runs]), runs.values(), strict=True)]
    found = []
    for key, labels in groups.items():
        if key in of_one:
            found.append((",".join(key), labels))
        else:  # a run that was made twice: its seeds are no sample
            found += [(label, [label]) for label in labels]
    names = short_labels([name for name, _ in found]) if len(found) > 1 else [""]
    counts = [f"mean of {len(labels)} seeds" if len(labels) > 1 else "" for _, labels in found]
    return [
        Group(", ".join(filter(None, (name, count))), tuple(runs[label] for label in labels))
        for name, count, (_, labels) in zip(names, counts, found, strict=True)
    ]


def mean_over(series: Sequence[Series]) -> Series:
    """The mean in the rounds that all have; NaN where one of them is.

    >>> mean_over([{1: 1.0, 2: 2.0, 3: 9.0}, {1: 3.0, 2: 4.0}])
    {1: 2.0, 2: 3.0}
    """
    return {round: fmean(values[round] for values in series) for round in series[0] if all(round in s for s in series)}


def draw_runs(runs: Mapping[str, Events], folder: Path, metric: str, note: str = "") -> list[str]:
    """Write losses and METRIC, as PNG and SVG, of several runs by name into `folder`; return the names of the figures.

    Runs that differ only in the seed have one colour: a thin line each, and a thick one for their mean. Nothing is
    written of runs that finished no round.
    """
    groups = by_seed({label: events for label, events in runs.items() if finished(events)})
    if not groups:
        return []
    losses: dict[str, Callable[[Events], Series]] = {
        "training": training_loss,
        "validation": partial(validation, metric="loss"),
    }
    name, scores = in_words(metric), {"": partial(validation, metric=metric)}
    save_plot(_compare(groups, losses, "Training and validation loss", "loss", note), folder, "losses")
    save_plot(_compare(groups, scores, f"{name} on validation patients", name, note), folder, metric)
    return ["losses", metric]


def _compare(
    groups: Sequence[Group], series: Mapping[str, Callable[[Events], Series]], title: str, quantity: str, note: str
) -> "Figure":
    """One plot of all groups; `series` by what the legend calls its lines: the first solid, the second dashed."""
    styles = list(filter(None, series))
    labels = [fill(group.label, 32) for group in groups] + styles
    rows = sum(label.count("\n") + 1 for label in labels)
    columns = math.ceil(rows / LEGEND_ROWS) if rows > MOST_INSIDE + len(styles) else 0
    figure = new_figure(title, note, width=8.0 + 2.5 * columns, height=5.0)
    axes = figure.subplots()
    for number, group in enumerate(groups):
        for dash, values in zip(DASHES, series.values(), strict=False):
            of_runs = [values(events) for events in group.runs]
            if len(of_runs) > 1:
                for one in of_runs:
                    draw_line(axes, one, *look(number), dash, thin=True)
            mean = draw_line(axes, mean_over(of_runs), *look(number), dash)
            if mean and len(of_runs) > 1:
                mean.set(linewidth=2.2)
    rounds = [round for group in groups for events in group.runs for round in axis(events)]
    over_rounds(axes, rounds, quantity)
    lines = [handle(*look(number)) for number in range(len(groups))]
    lines += [handle(GREY, MARKERS[0], dash) for dash, _ in zip(DASHES, styles, strict=False)]
    beside = {"fontsize": 8, "ncols": columns, "loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(lines, labels, frameon=False, handlelength=2.8, **(beside if columns else {"fontsize": 9}))
    return figure


def _words(label: str) -> list[str]:
    """What was set for a run of a sweep, from its name; a comma also parts the values of a list, as channels=8,16."""
    return re.split(r",(?=[^,]*=)", re.sub(r"^\d+-", "", label))


def _seed(label: str) -> str | None:
    return next((word for word in _words(label) if word.startswith("seed=")), None)
