"""What is printed of a run: a table with rounds down and sites across, and sentences below it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gliofed.server.report.sentences import bounds_of_run, reasons_of_run, rests
from gliofed.shared.terminal import plain

WIDEST = 8
"""Sites that have a column; with more, the spread over the sites is shown instead."""
FEW = 5
"""A metric of fewer patients is shown with their number."""


def print_results(events: Sequence[dict[str, Any]], metric: str) -> None:
    """Print the table, why sites did not count, and the bounds that they met."""
    Console().print(results_table(events, metric))
    for sentence in [*reasons_of_run(events), *bounds_of_run(events)]:
        print(plain(sentence))


def results_table(events: Sequence[dict[str, Any]], metric: str) -> Table:
    """Show `metric` after each round at each site and over all; a site that did not count shows how. Last the test, of
    the last round's model, and of the best round's where that is another.

    Row 0 has the weights that a run was given. A metric of fewer than five patients has their number beside it.
    A private run has a column with epsilon so far, of the site that has spent most.
    """
    rounds = [event for event in events if event["event"] in ("initial", "round", "round_failed")]
    sites = sorted({site for event in rounds for site in event["sites"]})
    table = Table(title=f"{metric.capitalize()} on validation patients")
    table.add_column("round", justify="right")
    for column in sites if len(sites) <= WIDEST else ("lowest", "highest", "counted"):
        table.add_column(column, justify="right")
    table.add_column("all", justify="right", style="bold")
    spent = {event["round"]: epsilon for event in rounds if (epsilon := _epsilon(event)) is not None}
    for column in ("epsilon",) * bool(spent) + ("s",):
        table.add_column(column, justify="right")
    for event in rounds:
        lines = [event["sites"].get(site) for site in sites]
        total = figure((event.get("global") or {}).get(metric), patients_behind(event))
        cells = [_cell(line, metric) for line in lines] if len(sites) <= WIDEST else _spread(lines, metric)
        cells += [total] + [figure(spent.get(event["round"]))] * bool(spent)
        table.add_row(str(event["round"]), *cells, f"{event['seconds']:.1f}")
    for event in (event for event in events if event["event"] == "test"):
        table.add_section()
        for name, model in event["models"].items():
            lines = [model["sites"].get(site) for site in sites]
            total = figure((model["global"] or {}).get(metric), measured_patients(model["sites"]))
            cells = [_measured(line, metric) for line in lines] if len(sites) <= WIDEST else _spread(lines, metric)
            table.add_row(f"test, {name}" if name == "last" else f"test, round {model['round']}", *cells, total)
    return table


def measured_patients(sites: Mapping[str, Any]) -> int:
    """Patients behind the means over all sites, from a model's lines of a test: of sites that told any metric."""
    return sum(line["evaluated"] or 0 for line in sites.values() if line["evaluate"])


def figure(value: float | None, patients: int | None = None) -> str:
    """A metric in a table, with the number of its patients where they are few; None: not known.

    >>> figure(1.0, 1), figure(0.8125, 16), figure(None, 0)
    ('1.000 (n=1)', '0.812', '-')
    """
    few = f" (n={patients})" if patients is not None and patients < FEW else ""
    return "-" if value is None else f"{value:.3f}{few}"


def patients_behind(event: dict[str, Any]) -> int | None:
    """Validation patients in the means over all sites of one round; None: an older version did not note them."""
    known = [
        line.get("evaluated")
        for line in event["sites"].values()
        if line.get("evaluate") and (line["status"] == "counted" or rests(line))
    ]
    return None if None in known else sum(filter(None, known))


def _epsilon(event: dict[str, Any]) -> float | None:
    """Of the round's sum, or the largest that a site told."""
    epsilons = [line["epsilon"] for line in event["sites"].values() if "epsilon" in line]
    return event.get("epsilon", max(epsilons, default=None))


def _cell(line: dict[str, Any] | None, metric: str) -> str:
    if line is None:
        return ""
    value = figure((line["evaluate"] or {}).get(metric), line.get("evaluated"))
    return value if line["status"] == "counted" or rests(line) else f"{value} {line['status']}".strip("- ")


def _measured(line: dict[str, Any] | None, metric: str) -> str:
    """A site's cell of a test."""
    return "" if line is None else figure((line["evaluate"] or {}).get(metric), line["evaluated"])


def _spread(lines: Sequence[dict[str, Any] | None], metric: str) -> list[str]:
    invited = [line for line in lines if not line or line["status"] != "not_invited"]
    known = [line for line in invited if line]
    present = [line for line in lines if line]
    values = [
        (value, line.get("evaluated"))
        for line in present
        if (value := (line["evaluate"] or {}).get(metric)) is not None
    ]
    counted = sum(line["status"] in ("counted", "measured") for line in known)
    ends = [figure(*end(values, key=lambda each: each[0], default=(None,))) for end in (min, max)]
    return [*ends, f"{counted}/{len(invited)}"]
