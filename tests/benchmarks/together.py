"""What docs/results.md begins with: whether it is better together, in three sentences and a picture."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gliofed.shared.comparison import FEDERATED, OWN, POOLED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALONE, TOGETHER = "#D55E00", "#0072B2"
"""Vermilion and blue of Okabe and Ito 2008, safe for the colour-blind; markers differ too."""


def sentences(found: Mapping[str, Any], patients: Sequence[int]) -> str:
    """Three, from a comparison over the sites, whose numbers of patients are given in their order."""
    metric, number = found["metric"], found["overall"][FEDERATED]["patients"]
    together, pooled = (found["overall"][model]["metrics"][metric]["value"] for model in (FEDERATED, POOLED))
    alone, gains = found["own"]["metrics"][metric]["value"], found["gains"]
    better = [site for site in found["sites"] if gains[site]["value"] > 0]
    most, least = (pick(found["sites"], key=lambda site: gains[site]["value"]) for pick in (max, min))
    words = {site: f"the one with {count} patients" for site, count in zip(found["sites"], patients, strict=True)}
    return (
        f"{len(patients)} simulated hospitals with {max(patients)} to {min(patients)} **synthetic** patients trained "
        f"one model together, and no scan left any of them: on {number} patients whom it had never seen, the tumour "
        f"that it draws has a {metric.capitalize()} of **{together:.2f}** with the true one (1 is perfect), and the "
        f"models that the hospitals trained alone have **{alone:.2f}**.\n"
        f"One place that had all the scans would reach **{pooled:.2f}**; without sharing any, the hospitals reach "
        f"{together / pooled:.0%} of that.\n"
        f"The common model is better than the hospital's own at {len(better)} of {len(patients)} hospitals, most at "
        f"{words[most]} ({gains[most]['value']:+.2f}) and least at {words[least]} ({gains[least]['value']:+.2f}).\n"
    )


def draw(found: Mapping[str, Any], patients: Sequence[int]) -> "Figure":
    """A line for each hospital, from its own model's score to that of the common one; dashed, all data in one place."""
    from matplotlib.figure import Figure

    metric, sites = found["metric"], found["sites"]
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(sites)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(sites), 0, -1)
    scores = [
        [found["matrix"][model][site]["metrics"][metric] for model, site in zip(models, sites, strict=True)]
        for models in ([OWN + site for site in sites], [FEDERATED] * len(sites))
    ]
    axes.hlines(rows, *scores, color="#999999", linewidth=2, zorder=1)
    for values, colour, marker, label in (
        (scores[0], ALONE, "s", "its own model, trained alone"),
        (scores[1], TOGETHER, "o", "the common model"),
    ):
        axes.scatter(values, rows, color=colour, marker=marker, s=60, label=label, zorder=2)
    pooled = found["overall"][POOLED]["metrics"][metric]["value"]
    axes.axvline(pooled, color="#333333", linestyle="--", linewidth=1, label="all scans in one place, all hospitals")
    axes.set_yticks(rows, [f"hospital with {count} patients" for count in patients])
    axes.set_xlabel("Dice: how well the tumour that was drawn covers the true one; 1 is perfect")
    axes.grid(axis="x", linewidth=0.4)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title("Synthetic patients, in a simulation", fontsize=9, color="#555555")
    figure.legend(loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure
