"""The tables of a report."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gliofed.server.report.page.curves import Table
from gliofed.server.report.page.standing import interval
from gliofed.server.report.record import Record, number, word
from gliofed.server.report.sentences import rests
from gliofed.server.report.table import measured_patients
from gliofed.shared.comparison import FEDERATED, OWN, POOLED, verdict
from gliofed.shared.events import Event
from gliofed.shared.left_out import in_full
from gliofed.shared.page.charts import nice_ticks

LEVELS = 5


@dataclass(frozen=True)
class Cell:
    """One figure in a table that is coloured by them."""

    text: str
    below: str
    level: int | None
    """0 to 4; None where there is no figure."""


@dataclass(frozen=True)
class Heat:
    """Such a table."""

    head: list[str]
    rows: list[tuple[str, list[Cell]]]


def heat(head: list[str], rows: Mapping[str, list[tuple[float, str]]]) -> Heat:
    """Colour (value, what stands below it) by place between the lowest and the highest of the table."""
    known = [value for cells in rows.values() for value, _ in cells if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)

    def level(value: float) -> int | None:
        if not math.isfinite(value):
            return None
        return min(LEVELS - 1, int(LEVELS * (value - low) / (high - low))) if high > low else LEVELS // 2

    return Heat(head, [(n, [Cell(_figure(v), below, level(v)) for v, below in cells]) for n, cells in rows.items()])


def matrix(comparison: Event) -> Heat:
    """Every model on every site's test patients, and on all."""
    sites, metric = comparison["sites"], comparison["metric"]
    rows = {}
    for model, scores in comparison["matrix"].items():
        cells = []
        for site in sites:
            score = scores.get(site) or {"patients": 0, "metrics": {}}
            cells.append((number(score["metrics"].get(metric)), f"n={score['patients']}"))
        overall = comparison["overall"].get(model) or {"patients": 0, "metrics": {}}
        found = overall["metrics"].get(metric) or {"value": None}
        cells.append((number(found["value"]), f"{_ends(found)}n={overall['patients']}"))
        rows[model_name(model)] = cells
    return heat(["model", *sites, "all"], rows)


def subgroups(comparison: Event) -> list[tuple[str, Heat]]:
    """The headline metric of each model in groups of the test patients."""
    found = []
    for by, groups in (comparison.get("subgroups") or {}).items():
        models = [model for model in comparison["models"] if any(model in g["models"] for g in groups.values())]
        rows = {}
        for group, scores in groups.items():
            cells = [scores["models"].get(model) or {"value": None} for model in models]
            rows[f"{group} (n={scores['patients']})"] = [(number(c["value"]), _ends(c).strip()) for c in cells]
        found.append((by, heat([by, *map(model_name, models)], rows)))
    return found


def gains(comparison: Event) -> dict[str, Any] | None:
    """What each site gains over its own model, with the interval, as places in a picture 400 wide."""
    those = {site: gain for site, gain in (comparison.get("gains") or {}).items() if gain["value"] is not None}
    if not those:
        return None
    ends = [number(gain[key]) for gain in those.values() for key in ("value", "low", "high")]
    known = [end for end in ends if math.isfinite(end)]
    ticks = nice_ticks(min([0.0, *known]), max([0.0, *known]))

    def place(value: float) -> float:
        return round(130 + 255 * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    sign = -1 if comparison.get("lower_is_better") else 1
    rows: list[dict[str, Any]] = []
    for at, (site, gain) in enumerate(sorted(those.items(), key=lambda each: sign * each[1]["value"])):
        whole = gain["low"] is not None and gain["high"] is not None
        rows.append(
            {
                "name": site if len(site) <= 18 else f"{site[:17]}…",
                "y": 18 + 22 * at,
                "x": place(gain["value"]),
                "low": place(gain["low"]) if whole else None,
                "high": place(gain["high"]) if whole else None,
                "colour": 2 if verdict(gain, sign < 0) == "better" else 7,
                "tip": f"{site}: {gain['value']:+.3f}{interval(gain)} (n={gain['patients']})",
            }
        )
    name = word(comparison["metric"])
    return {
        "title": f"Gain of each site over its own model, {name}",
        "note": "with 95 % intervals; at the right of 0 the federated model is better"
        if sign > 0
        else "with 95 % intervals; at the left of 0 the federated model is better",
        "height": 40 + 22 * len(rows),
        "xs": [(place(tick), f"{tick:g}") for tick in ticks],
        "zero": place(0.0),
        "rows": rows,
    }


def test_table(record: Record) -> Heat | None:
    """The measurement at the end, of the last model and of the best."""
    if record.test is None:
        return None
    models, rows = record.test["models"], {}
    for name, found in models.items():
        lines, cells = found["sites"], []
        for site in record.sites:
            line = lines.get(site) or {}
            below = (
                f"n={line['evaluated']}"
                if line.get("evaluated") is not None
                else str(line.get("status") or "").replace("_", " ")
            )
            cells.append((number((line.get("evaluate") or {}).get(record.metric)), below))
        cells.append((number((found["global"] or {}).get(record.metric)), f"n={measured_patients(lines)}"))
        rows[f"{name} (round {found['round']})"] = cells
    return heat(["model", *record.sites, "all"], rows)


def weak_spots(record: Record) -> Heat | None:
    """The latest figures by site and region, the weakest site first."""
    if record.final is None:
        return None
    _, lines, overall, patients = record.final
    names = [record.metric, *(f"{record.metric}_{part.lower()}" for part in record.parts)]
    sites = {
        f"{site} (n={'not known' if line.get('evaluated') is None else line['evaluated']})": [
            (number(line["evaluate"].get(name)), "") for name in names
        ]
        for site, line in lines.items()
        if line.get("evaluate")
    }
    sign = -1 if record.lower_is_better else 1
    known = [site for site in sites if math.isfinite(sites[site][0][0])]
    order = sorted(known, key=lambda site: sign * sites[site][0][0]) + [site for site in sites if site not in known]
    everyone = {
        f"all (n={'not known' if patients is None else patients})": [(number(overall.get(name)), "") for name in names]
    }
    return heat(["site", *map(word, names)], everyone | {site: sites[site] for site in order})


def cases(record: Record) -> Table:
    """What each site trained on, and what it left out, as it told last."""
    rows = []
    for site in record.sites:
        left_out, patients = record.left_out(site), record.patients(site)
        validated = [line["evaluated"] for _, line in record.lines[site] if line.get("evaluated") is not None]
        tested = ((record.test or {"models": {}})["models"].get("last") or {"sites": {}})["sites"].get(site) or {}
        rows.append(
            [
                site,
                "not told" if patients is None else patients,
                validated[-1] if validated else "not told",
                tested.get("evaluated"),
                sum(left_out.values()),
                "; ".join(in_full(left_out)) or "-",
            ]
        )
    head = ["site", "training patients", "validation patients", "test patients", "cases left out", "why"]
    return Table(head, rows)


def bytes_of_sites(record: Record) -> Table:
    """What went to and from each site, over all rounds."""
    rows = []
    for site in record.sites:
        lines = [line for _, line in record.lines[site]]
        counted = sum(line["status"] == "counted" for line in lines)
        moved = [f"{sum(line[key] for line in lines) / 1e6:.1f}" for key in ("bytes_down", "bytes_up")]
        rows.append([site, f"{counted} of {sum(not rests(line) for line in lines)}", *moved])
    return Table(["site", "rounds that counted", "MB to the site", "MB from it"], rows)


def model_name(model: str) -> str:
    """A model of a comparison, in words.

    >>> model_name("federated"), model_name("local site-1")
    ('federated, last round', 'site-1 alone')
    """
    names = {FEDERATED: "federated, last round", "best": "federated, best round", POOLED: "all data at one place"}
    return f"{model.removeprefix(OWN)} alone" if model.startswith(OWN) else names.get(model, model)


def _figure(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _ends(found: Event) -> str:
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f} "
