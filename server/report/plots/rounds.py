"""Figures of how the rounds went: who took part, whose update weighed what, bytes, seconds and privacy spent."""

from typing import TYPE_CHECKING, Any

from gliofed.server.report import series
from gliofed.server.report.plots.style import BLACK, COLOURS, GREY, PALE, draw_line, look, new_figure, over_rounds
from gliofed.server.report.record import Record
from gliofed.server.report.sentences import bounds_met

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATUSES = {
    "counted": (COLOURS[0], "s"),
    "refused": (COLOURS[1], "X"),
    "declined": (COLOURS[5], "v"),
    "failed": (BLACK, "x"),
    "late": (COLOURS[3], "D"),
    "missing": (GREY, "o"),
    "not_asked": (GREY, "1"),
    "not_invited": (PALE, "_"),
    "expelled": (BLACK, "P"),
    series.NOT_DRAWN: (PALE, "."),
}
"""Colour and marker of a site's part in a round; markers differ, so that it reads in grey."""
ROW = 0.22
"""Inches a site."""
STACK = (*COLOURS[:-1], "#F0E442", "#999999")
"""Of sites in a stack; of more sites, those that weigh most have a colour, and the others together are grey."""
_NO_LINE = {"status": "not_invited"}
UNKNOWN = (BLACK, "*")
MOST_LINES = 8
"""Sites that have a line of their own."""
UNITS = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "bytes": 1.0}


def participation(run: Record) -> "Figure | None":
    """Who took part in which round: a row a site, a mark a round, and at its end how often the site counted."""
    sites, tried = series.statuses(run.events), series.attempted(run.events)
    if not sites:
        return None
    width = min(14.0, max(8.0, 3.0 + 0.16 * len(tried)))
    figure = new_figure(f"{run.name}: who took part", run.note, width, height=1.9 + ROW * len(sites))
    axes = figure.subplots()
    side = max(2.0, min(7.0, 72 * 0.8 * (width - 3.0) / len(tried)))  # points
    marks: dict[str, list[tuple[int, int]]] = {}
    for row, rounds in enumerate(sites.values()):
        for number, status in rounds.items():
            marks.setdefault(status, []).append((number, row))
    for status in sorted(marks, key=_order):
        (colour, marker), label = STATUSES.get(status, UNKNOWN), f"{status.replace('_', ' ')} ({len(marks[status])})"
        x, y = zip(*marks[status], strict=True)
        axes.plot(x, y, linestyle="", marker=marker, color=colour, markersize=side, label=label)
    for row, rounds in enumerate(sites.values()):
        counted = f"{sum(status == 'counted' for status in rounds.values())} of {len(tried)}"
        end: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        axes.annotate(counted, (1.0, row), (4, 0), fontsize=8, color=GREY, **end)
    failed = [number for number, event in tried.items() if event["event"] == "round_failed"]
    for turn, number in enumerate(failed):
        axes.axvspan(number - 0.5, number + 0.5, color="#E6E6E6", zorder=0, label=None if turn else "round failed")
    over_rounds(axes, list(tried), "", least=0.7)
    axes.set_yticks(range(len(sites)), list(sites), fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(sites) - 0.4, -0.6)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=5, numpoints=1, handletextpad=0.1)
    return figure


def weights(run: Record) -> "Figure | None":
    """Each site's share of the weight in each round, stacked; a cross where a bound changed what the site sent."""
    shares = series.shares(run.events)
    if not shares:
        return None
    figure = new_figure(f"{run.name}: shares of the weight", run.note, width=8.0, height=4.4)
    axes = figure.subplots()
    rounds = [event["round"] for event in series.finished(run.events)]
    bottom, crosses = [0.0] * len(rounds), []
    for number, (label, sites) in enumerate(_stack(shares).items()):
        heights = [sum(shares[site].get(at, 0.0) for site in sites) for at in rounds]
        colour = PALE if len(sites) > 1 else STACK[number]
        axes.bar(rounds, heights, bottom=bottom, width=0.9, color=colour, label=label, edgecolor="white", linewidth=0.4)
        for event, height, below in zip(series.finished(run.events), heights, bottom, strict=True):
            if any(bounds_met(event["sites"].get(site, _NO_LINE)) for site in sites):
                crosses.append((event["round"], below + height / 2))
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    if crosses:
        axes.plot(*zip(*crosses, strict=True), "x", color=BLACK, markersize=5, label="met a bound")
    over_rounds(axes, rounds, "share", least=0.7)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def traffic(run: Record) -> "Figure | None":
    """Bytes of all sites together, and seconds, by round."""
    rounds = [*series.attempted(run.events)]
    if not rounds:
        return None
    figure = new_figure(f"{run.name}: what a round takes", run.note, width=10.0, height=3.6)
    left, right = figure.subplots(1, 2)
    down, up = (list(series.traffic(run.events, key).values()) for key in ("bytes_down", "bytes_up"))
    largest = max(a + b for a, b in zip(down, up, strict=True))
    unit = next((name for name, size in UNITS.items() if largest >= size), "bytes")
    down, up = ([value / UNITS[unit] for value in values] for values in (down, up))
    left.bar(rounds, down, width=0.8, color=COLOURS[0], label="to the sites")
    left.bar(rounds, up, bottom=down, width=0.8, color=COLOURS[5], label="from the sites")
    right.bar(rounds, list(series.seconds(run.events).values()), width=0.8, color=COLOURS[2])
    for axes, quantity in ((left, unit), (right, "seconds")):
        over_rounds(axes, rounds, quantity, least=0.7)
    left.set_ylim(0, 1.25 * (left.get_ylim()[1] or 1.0))  # room for the legend
    left.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    return figure


def epsilon(run: Record) -> "Figure | None":
    """Privacy spent over the rounds, by site, against the run's budget; None of a run without privacy."""
    spent, tried = series.epsilons(run.events), [*series.attempted(run.events)]
    if not spent:
        return None
    figure = new_figure(f"{run.name}: privacy spent", run.note, width=8.0)
    axes = figure.subplots()
    if len(spent) > MOST_LINES:
        # A site that was away in a round has spent what it had spent before.
        far = {at: [max(past) for values in spent.values() if (past := _until(values, at))] for at in tried}
        far = {at: known for at, known in far.items() if known}
        ends = {"highest of all sites": max, "lowest of all sites": min}
        spent = {name: {at: end(known) for at, known in far.items()} for name, end in ends.items()}
    for number, (name, values) in enumerate(spent.items()):
        draw_line(axes, values, *look(number, COLOURS[:-1]), label=name)
    if run.budget is not None:
        axes.axhline(run.budget, linestyle="--", color=BLACK, linewidth=1.2, label=f"budget, {run.budget:g}")
    over_rounds(axes, tried, "epsilon")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _stack(shares: dict[str, series.Series]) -> dict[str, list[str]]:
    """What is stacked, by label: a site each, or those that weigh most and the others together."""
    if len(shares) <= len(STACK):
        return {site: [site] for site in shares}
    total = {site: sum(values.values()) for site, values in shares.items()}
    most = sorted(sorted(shares, key=lambda site: (-total[site], site))[: len(STACK) - 1])
    others = sorted(shares.keys() - set(most))
    return {site: [site] for site in most} | {f"{len(others)} other sites": others}


def _until(values: series.Series, last: int) -> list[float]:
    return [value for at, value in values.items() if at <= last]


def _order(status: str) -> int:
    return [*STATUSES, status].index(status)
