"""The pictures of a report: what is drawn over the rounds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gliofed.server.report.record import Record, number, word
from gliofed.server.report.series import training_loss
from gliofed.server.report.table import patients_behind
from gliofed.shared.page.charts import Chart, Line, Series, chart, site_chart

TITLES = {
    "hd95": "HD95, mm",
    "tp": "True positives",
    "fp": "False positives",
    "tn": "True negatives",
    "fn": "False negatives",
}
"""Of metrics whose names say too little."""


@dataclass(frozen=True)
class Table:
    """Rows of a table; the first cell of each names it."""

    head: list[str]
    rows: list[list[Any]]


def curves(record: Record) -> list[Chart | None]:
    """Loss and the headline metric: over all, by site, by region."""
    name, people, told = record.metric_name, _people(record), _of_sites(record)
    trained = _by_site(record, lambda line: (line["train"] or {}).get("loss"), counted=True)
    losses = [
        Line(label="training", values=training_loss(record.events), colour=0),
        Line(label="validation", values=record.series("loss"), colour=1, style="dashed"),
    ]
    metric = [Line(label="all sites", values=record.series(record.metric), colour=6)]
    ends = record.series(f"{record.metric}_low"), record.series(f"{record.metric}_high")
    if any(math.isfinite(value) for value in ends[0].values()):
        metric += [
            Line(label=label, values=values, colour=7, style="dashed")
            for label, values in zip(("95 % low", "95 % high"), ends, strict=True)
        ]
    parts = [
        Line(label=part, values=record.series(f"{record.metric}_{part.lower()}"), colour=place)
        for place, part in enumerate(record.parts)
    ]
    overall = Line(label="all sites", values=record.series(record.metric), colour=6, style="dashed")
    return [
        chart("Loss, all sites", losses, note=people),
        chart(f"{name}, all sites", metric, note=people),
        chart(f"{name} by region, all sites", parts, note=people) if len(parts) > 1 else None,
        site_chart(f"{name} by site", record.site_series(record.metric), overall, note=told),
        *(
            site_chart(f"{name} {part} by site", record.site_series(f"{record.metric}_{part.lower()}"), note=told)
            for part in record.parts
            if len(record.parts) > 1
        ),
        site_chart("Training loss by site", trained),
    ]


def other_metrics(record: Record) -> list[Chart | None]:
    """Every other metric over all patients: those with regions with a line each."""
    ends = ("_low", "_high", *(f"_{part.lower()}" for part in record.parts))
    names = {name for event in record.measured for name in event["global"]} - {"loss", record.metric}
    found: list[Chart | None] = []
    for name in sorted(each for each in names if not each.endswith(ends)):
        lines = [Line(label="all sites", values=record.series(name), colour=6)]
        lines += [
            Line(label=part, values=record.series(f"{name}_{part.lower()}"), colour=place)
            for place, part in enumerate(record.parts)
        ]
        found.append(chart(TITLES.get(name, word(name)), lines, note=_people(record)))
    return found


def numbers(record: Record) -> Table | None:
    """The same figures over all sites, for who reads no picture."""
    names = sorted({name for event in record.measured for name in event["global"]})
    if not names:
        return None
    rows = [
        [event["round"], patients_behind(event), *(_figure(event["global"].get(name)) for name in names)]
        for event in record.measured
    ]
    return Table(["round", "n", *map(word, names)], rows)


def shares(record: Record) -> list[Chart | None]:
    """Each site's weight in the model, and how large its updates were."""
    share = _by_site(record, lambda line: line.get("share"))
    size = _by_site(record, lambda line: line.get("size"))
    most, clip = record.setting("fold", "max_share"), record.setting("fold", "clip")
    return [
        site_chart(
            "Share of the weight",
            share,
            low=0.0,
            rule=(most, f"fold.max_share={most:g}") if most and len(record.sites) > 2 else None,
        ),
        site_chart(
            "Size of updates, in the round's usual sizes",
            size,
            low=0.0,
            rule=(clip, f"fold.clip={clip:g}: larger ones are clipped") if clip else None,
        ),
    ]


def traffic(record: Record) -> list[Chart | None]:
    """Megabytes and seconds of each round."""
    moved: dict[str, Series] = {
        label: {e["round"]: sum(line[key] for line in e["sites"].values()) / 1e6 for e in record.attempts}
        for label, key in (("to the sites", "bytes_down"), ("from the sites", "bytes_up"))
    }
    lines = [Line(label=label, values=values, colour=place) for place, (label, values) in enumerate(moved.items())]
    seconds = [Line(label="whole round", values={e["round"]: e["seconds"] for e in record.attempts}, colour=6)]
    phases = sorted({key for e in record.attempts for key in e if key.startswith("seconds_")})
    seconds += [
        Line(
            label=key.removeprefix("seconds_"),
            values={e["round"]: number(e.get(key)) for e in record.attempts},
            colour=n,
        )
        for n, key in enumerate(phases)
    ]
    return [chart("Megabytes of a round", lines, low=0.0), chart("Seconds of a round", seconds, low=0.0)]


def privacy_chart(record: Record) -> Chart | None:
    """Epsilon against the budget."""
    spent, budget = record.epsilons, record.setting("privacy", "epsilon")
    whose = "" if record.setting("privacy", "mechanism") == "central" else ", of the site that has spent most"
    return chart(
        f"Epsilon spent{whose}",
        [Line(label="epsilon", values=spent, colour=3)],
        low=0.0,
        rule=(float(budget), f"budget {budget:g}") if budget else None,
    )


def _by_site(record: Record, read: Callable[[Any], Any], counted: bool = False) -> dict[str, Series]:
    """A value of each site's lines; a gap where it has none."""
    return {
        site: {
            round: number(read(line)) if not counted or line["status"] == "counted" else math.nan
            for round, line in record.lines[site]
        }
        for site in record.sites
    }


def _people(record: Record) -> str:
    known = [n for event in record.measured if (n := patients_behind(event)) is not None]
    if not known:
        return ""
    return f"n={known[0]}" if min(known) == max(known) else f"n={min(known)} to {max(known)}, by round"


def _of_sites(record: Record) -> str:
    """The number of patients of each site; where sites are many, only how few and how many there are."""
    told = {
        site: line["evaluated"]
        for event in record.measured
        for site, line in event["sites"].items()
        if line.get("evaluate") and line.get("evaluated") is not None
    }
    if len(told) > 8:
        return f"n={min(told.values())} to {max(told.values())} patients a site"
    return ", ".join(f"{site} n={patients}" for site, patients in sorted(told.items()))


def _figure(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}"
