"""What is printed of a comparison of models: the matrix of models and sites, and sentences below it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gliofed.server.report.table import WIDEST, figure
from gliofed.shared.comparison import FEDERATED, FEWEST, OWN, verdict, with_interval
from gliofed.shared.terminal import plain
from gliofed.shared.wording import quantity

AT_HOME = "each site's own"
"""The row of every site's own model on that site's patients."""


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """Print the table and the sentences of a comparison.json; where the table is too wide, that of the spread."""
    console, table = Console(), comparison_table(comparison, spread=len(comparison["sites"]) > WIDEST)
    if console.measure(table, options=console.options.update(max_width=WIDEST * console.width)).maximum > console.width:
        table = comparison_table(comparison, spread=True)
    console.print(table)
    for sentence in comparison_sentences(comparison):
        print(plain(sentence))


def comparison_table(comparison: Mapping[str, Any], spread: bool = False) -> Table:
    """The headline of each model (down) on the test patients of each site (across), and of all with its interval.

    With `spread` there are the lowest and the highest site instead, and of the sites' own models only how each does at
    home.
    """
    metric, sites, matrix = comparison["metric"], comparison["sites"], comparison["matrix"]
    table = Table(title=f"{metric.capitalize()} on test patients, models down")
    table.add_column("model")
    numbers = {site: matrix[FEDERATED][site]["patients"] for site in sites}
    for column in ("lowest", "highest") if spread else [f"{site}\nn={numbers[site]}" for site in sites]:
        table.add_column(column, justify="right")
    table.add_column(f"all\nn={sum(numbers.values())}", justify="right", style="bold")
    rows = {model: [by_site[site]["metrics"].get(metric) for site in sites] for model, by_site in matrix.items()}
    totals = {model: whole["metrics"][metric] for model, whole in comparison["overall"].items()}
    if "own" in comparison:
        rows[AT_HOME] = [matrix[OWN + site][site]["metrics"].get(metric) for site in sites]
        totals[AT_HOME] = comparison["own"]["metrics"][metric]
    for model, values in rows.items():
        if spread and model.startswith(OWN):
            continue
        known = [value for value in values if value is not None]
        shown = [min(known, default=None), max(known, default=None)] if spread else values
        table.add_row(_name(model, comparison), *map(figure, shown), with_interval(totals[model]))
    return table


def comparison_sentences(comparison: Mapping[str, Any]) -> list[str]:
    """How the federated model stands to the pooled one and to each site's own, and where it is worst.

    Each with the number of test patients.
    """
    metric, less = comparison["metric"], comparison["lower_is_better"]
    number = comparison["overall"][FEDERATED]["patients"]
    sentences = []
    if (over := comparison["over_pooled"]) and over["value"] is not None:
        better = ", where less is better" * less
        sentences.append(f"federated over pooled, {metric}{better}: {with_interval(over)} (n={number})")
    if gains := comparison["gains"]:
        sentences += _gains(gains, metric, less)
    if worst := comparison["worst_site"]:
        value = f"{worst['value']:.3f} (n={worst['patients']})"
        sentences.append(f"the federated model is worst at {worst['site']}: {metric} {value}")
    if untested := comparison.get("untested"):
        sentences.append(f"no test patients, so nothing is known of {', '.join(untested)}")
    if any(model.get("private") for model in comparison["models"].values()):
        sentences.append("the federation is private; the references are trained without privacy")
    if comparison.get("given_weights"):
        sentences.append("every model began with the given weights, so none is of one site's data alone")
    return sentences


def _gains(gains: Mapping[str, Any], metric: str, less: bool) -> Sequence[str]:
    known = {site: gain for site, gain in gains.items() if gain["value"] is not None}
    verdicts = [verdict(gain, less) for gain in known.values()]
    better, worse = verdicts.count("better"), verdicts.count("worse")
    head = f"the federated model is better than the site's own at {better} of {quantity(len(known), 'site')}"
    if chance := len(known) - better - worse:
        why = f"its interval holds 0 or is of fewer than {FEWEST} patients"
        head += f" and worse at {worse}; at {chance} the difference may be chance, since {why}"
    each = [f"{site} {with_interval(gain, '+')} (n={gain['patients']})" for site, gain in known.items()]
    return [f"{head}; {metric}, federated minus own: {', '.join(each)}" if each else head]


def _name(model: str, comparison: Mapping[str, Any]) -> str:
    rounds = comparison["models"].get(model, {}).get("round")
    return f"{model}, round {rounds}" if model == "best" else model
