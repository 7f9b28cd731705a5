"""Figures of comparison.json: every model on every site's test patients, and what the federation gives each site."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gliofed.server.report.plots.style import BLACK, COLOURS, GREY, frame, in_words, new_figure
from gliofed.server.report.record import Record
from gliofed.shared.comparison import OWN, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = "all"
VERDICTS = {"better": COLOURS[0], "worse": COLOURS[1]}
"""Colour of a gain that is no chance."""


def matrix(run: Record) -> "Figure | None":
    """Every model, a row, on each site's test patients and on all of them, with the numbers; None without references.

    What a site's own model scores on its own patients is bold.
    """
    found = run.comparison
    if found is None:
        return None
    metric, models = found["metric"], list(found["matrix"])
    sites = [*found["sites"], ALL]
    rows = [[_cell(found, model, site) for site in sites] for model in models]
    known = [value for row in rows for value in row if not math.isnan(value)]
    title = f"{run.name}: {in_words(metric)} of each model on each site's test patients"
    width, height = max(7.0, 2.6 + 0.46 * len(sites)), 2.1 + 0.26 * len(models)
    figure = new_figure(title, _sentence(run.note, _over_pooled(found)), width, height)
    axes = figure.subplots()
    scale = "cividis_r" if found["lower_is_better"] else "cividis"
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    image = axes.imshow(rows, cmap=scale, vmin=low, vmax=high, aspect="auto")
    colours = image.to_rgba(np.array(rows))
    for row, model in enumerate(models):
        for column, site in enumerate(sites):
            value = rows[row][column]
            r, g, b, _ = colours[row][column]
            ink = BLACK if math.isnan(value) or 0.3 * r + 0.59 * g + 0.11 * b > 0.5 else "white"
            text = "-" if math.isnan(value) else f"{value:.2f}"
            weight = "bold" if model == OWN + site else "normal"
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink, fontweight=weight)
    axes.axvline(len(sites) - 1.5, color="white", linewidth=3)
    axes.set_xticks(range(len(sites)), [f"{site}\nn={_patients(found, site)}" for site in sites], fontsize=8)
    axes.set_yticks(range(len(models)), models, fontsize=8)
    axes.tick_params(length=0)
    if len(sites) > 9 or max(map(len, sites)) > 8:
        axes.tick_params(axis="x", rotation=90)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=in_words(metric), fraction=0.03, pad=0.01)
    return figure


def gains(run: Record) -> "Figure | None":
    """What each site gains over its own model, with its interval over patients; None without local references."""
    found = run.comparison
    if found is None or not found.get("gains"):
        return None
    of_sites = found["gains"]
    names = sorted(of_sites)
    metric = in_words(found["metric"])
    figure = new_figure(
        f"{run.name}: the federated model against each site's own", _sentence(run.note, _worst(found)),
        width=8.0, height=1.7 + 0.24 * len(names),
    )  # fmt: skip
    axes = figure.subplots()
    axes.axvline(0, color=GREY, linewidth=1)
    for row, name in enumerate(names):
        gain = of_sites[name]
        value, low, high = (gain[key] for key in ("value", "low", "high"))
        if value is None:
            continue
        colour = VERDICTS.get(verdict(gain, found["lower_is_better"]), GREY)
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=colour, linewidth=1.6)
        axes.plot(value, row, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(names)), [f"{name}, n={of_sites[name]['patients']}" for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    better = "left" if found["lower_is_better"] else "right"
    frame(axes, f"{metric} of the federated model minus that of the site's own; {better} is better", "", grid="x")
    return figure


def _cell(found: Mapping[str, Any], model: str, site: str) -> float:
    if site == ALL:
        value = found["overall"].get(model, {}).get("metrics", {}).get(found["metric"], {}).get("value")
    else:
        value = found["matrix"][model].get(site, {}).get("metrics", {}).get(found["metric"])
    return math.nan if value is None else float(value)


def _patients(found: Mapping[str, Any], site: str) -> int:
    """Test patients of a site, or of all: every model is scored on the same ones."""
    first = next(iter(found["matrix"]))
    return int((found["overall"][first] if site == ALL else found["matrix"][first][site])["patients"])


def _over_pooled(found: Mapping[str, Any]) -> str:
    ratio = found.get("over_pooled") or {}
    return f"federated / pooled: {_interval(ratio)}" if ratio.get("value") is not None else ""


def _worst(found: Mapping[str, Any]) -> str:
    worst = found.get("worst_site") or {}
    if worst.get("value") is None:
        return ""
    return f"the federated model is weakest at {worst['site']}: {worst['value']:.2f}, n={worst['patients']}"


def _interval(of: Mapping[str, Any]) -> str:
    known = of.get("low") is not None and of.get("high") is not None
    return f"{of['value']:.2f}" + (f" ({of['low']:.2f} to {of['high']:.2f})" if known else "")


def _sentence(*parts: str) -> str:
    return "; ".join(filter(None, parts))
