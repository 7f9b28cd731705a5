"""Figures of what a run learned: losses and metrics over the rounds, of all sites, by site and by region."""

import math
from typing import TYPE_CHECKING

from gliofed.server.report import series
from gliofed.server.report.plots.style import (
    BLACK,
    COLOURS,
    GREY,
    PALE,
    draw_line,
    handle,
    in_words,
    look,
    new_figure,
    over_rounds,
)
from gliofed.server.report.record import Record
from gliofed.shared.tasks import TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MOST_SITES = 8
"""Sites that have a line with a name; of more, those that score worst have one, and the others are pale."""
WEAKEST = 3
PANELS = 4
"""Panels in a row."""
_OF_SITES = COLOURS[:-1]  # black is the line of all sites


def curves(run: Record) -> "Figure | None":
    """Losses on the left, the headline metric with its interval on the right; test scores where they are measured."""
    figure = new_figure(run.name, run.note, width=10.0)
    left, right = figure.subplots(1, 2)
    sites = [line for line in series.site_losses(run.events).values() if not all(map(math.isnan, line.values()))]
    if 1 < len(sites) <= MOST_SITES:
        for number, losses in enumerate(sites):
            draw_line(left, losses, *look(0), label=None if number else "training, each site", thin=True)
    draw_line(left, series.training_loss(run.events), *look(0), label="training")
    draw_line(left, series.validation(run.events, "loss"), *look(1), dash="--", label="validation")
    over_rounds(left, run.axis, "loss")
    band(right, *(series.validation(run.events, f"{run.metric}_{end}") for end in ("low", "high")))
    draw_line(right, series.validation(run.events, run.metric), *look(2), label="validation")
    for model, (round, value) in series.test_scores(run.events, run.metric).items():
        face = BLACK if model == "last" else "white"
        right.plot(round, value, "*", color=BLACK, markerfacecolor=face, markersize=9, label=f"test, {model} model")
    over_rounds(right, run.axis, in_words(run.metric))
    for axes in (left, right):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9, handlelength=2.8)
    return figure


def by_site(run: Record) -> "Figure | None":
    """Losses and every metric of each site, a panel each, with all sites together in black."""
    losses = series.site_losses(run.events)
    scores = {name: series.site_metrics(run.events, name) for name in series.metrics(run.events)}
    if not losses:
        return None
    panels = {"training loss": losses, "validation loss": series.site_metrics(run.events, "loss")}
    panels |= {in_words(name): values for name, values in scores.items()}
    together = [series.training_loss(run.events), series.validation(run.events, "loss")]
    together += [series.validation(run.events, name) for name in scores]
    figure, axes, legend = _panels(f"{run.name}: each site", run.note, len(panels))
    looks = _looks(sorted(losses), scores.get(run.metric, {}), run.metric)
    for panel, (quantity, sites), everybody in zip(axes, panels.items(), together, strict=True):
        for site in sorted(sites, key=lambda site: site in looks):  # pale ones first, below
            colour, marker = looks.get(site, (PALE, "."))
            if line := draw_line(panel, sites[site], colour, marker):
                line.set(linewidth=1.1 if site in looks else 0.6, markersize=3, zorder=2.2 if site in looks else 1.8)
        if line := draw_line(panel, everybody, BLACK, "o"):
            line.set(linewidth=2.0, zorder=2.5, markersize=3)
        over_rounds(panel, run.axis, quantity)
    lines = {site: handle(*pair) for site, pair in looks.items()}
    if others := len(losses.keys() - looks.keys()):
        lines[f"{others} other sites"] = handle(PALE, ".")
    lines["all sites"] = handle(BLACK, "o")
    _explain(legend, lines, f"worst {in_words(run.metric)}:" if others and looks else "")
    return figure


def by_region(run: Record) -> "Figure | None":
    """Every metric that is known by region, a panel each; None where there is none."""
    events = run.events
    known = {metric: parts for metric in series.metrics(events) if (parts := series.regions(events, metric))}
    if not known:
        return None
    figure, axes, legend = _panels(f"{run.name}: each region, on validation patients", run.note, len(known))
    names = list(dict.fromkeys(part for parts in known.values() for part in parts))
    looks = {part: look(number, _OF_SITES) for number, part in enumerate(names)}
    for panel, (metric, parts) in zip(axes, known.items(), strict=True):
        for part in parts:
            draw_line(panel, series.validation(events, f"{metric}_{part}"), *looks[part])
        if line := draw_line(panel, series.validation(events, metric), BLACK, "o", dash="--"):
            line.set(zorder=2.5, markersize=3)
        over_rounds(panel, run.axis, in_words(metric))
    _explain(
        legend, {in_words(part): handle(*pair) for part, pair in looks.items()} | {"mean": handle(BLACK, "o", "--")}
    )
    return figure


def band(axes: "Axes", low: series.Series, high: series.Series) -> None:
    """The interval of the metric: a band, or a bar where there is but one round."""
    both = [(round, value, high[round]) for round, value in low.items() if not math.isnan(value + high[round])]
    if len(both) == 1:
        axes.vlines(*both[0], colors=COLOURS[2], alpha=0.4, linewidth=4, label="interval")
    elif both:
        rounds, lows, highs = zip(*both, strict=True)
        axes.fill_between(rounds, lows, highs, color=COLOURS[2], alpha=0.15, linewidth=0, label="interval")


def _looks(sites: list[str], scores: dict[str, series.Series], metric: str) -> dict[str, tuple[str, str]]:
    """The sites that have a line with a name, and its colour and marker: all, or those that score worst at last."""
    if len(sites) > MOST_SITES:
        last = {site: known[-1] for site in sites if (known := _known(scores.get(site, {})))}
        lower_is_better = next((task.lower_is_better for task in TASKS.values() if task.headline == metric), False)
        sites = sorted(last, key=lambda site: (last[site], site), reverse=lower_is_better)[:WEAKEST]
    return {site: look(number, _OF_SITES) for number, site in enumerate(sites)}


def _known(values: series.Series) -> list[float]:
    return [value for value in values.values() if not math.isnan(value)]


def _panels(title: str, note: str, number: int) -> tuple["Figure", list["Axes"], "Axes"]:
    """A figure of so many panels, and a place for their legend after them."""
    rows = math.ceil((number + 1) / PANELS)
    columns = min(number + 1, PANELS)
    figure = new_figure(title, note, width=3.1 * columns, height=0.6 + 2.5 * rows)
    grid = [*figure.subplots(rows, columns, squeeze=False).flat]
    for empty in grid[number:]:
        empty.set_axis_off()
    return figure, grid[:number], grid[number]


def _explain(axes: "Axes", lines: dict[str, "Line2D"], title: str = "") -> None:
    legend = axes.legend(
        lines.values(),
        lines,
        frameon=False,
        fontsize=9,
        loc="upper left",
        handlelength=2.8,
        title=title or None,
        title_fontsize=9,
        alignment="left",
    )
    legend.get_title().set_color(GREY)
