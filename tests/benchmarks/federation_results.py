"""docs/results.md on eight uneven and four equal sites: the federation against pooled data and each site alone."""

import csv
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gliofed.server.report.comparison import AT_HOME
from gliofed.shared.comparison import FEDERATED, OWN, POOLED, Measures, Subject, compare, with_interval
from gliofed.shared.events import read_events
from gliofed.shared.run_folder import SimulationFolder
from gliofed.simulation.settings import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATIENTS = (160, 120, 15, 12, 11, 8, 6, 4)
WORDS = (
    "model=unet", "data=phantom", f"data.patients=[{','.join(map(str, PATIENTS))}]", "data.validation=0.15",
    "data.test=0.35", "train.steps=16", "optimizer=muon", "train.lr=0.05", "optimizer.moments=averaged",
    "baselines=[pooled,local]",
)  # fmt: skip
"""The split leaves each site two test patients or more, and 108 at each seed: it goes by names, which seeds share."""
UNEVEN = (*WORDS, "rounds=12", "round.evaluate_every=2")
UNEVEN_ROWS = {"8 uneven sites, 48 rounds": (*WORDS, "rounds=48", "round.evaluate_every=0")}
EQUAL = (
    "model=unet", "data=phantom", "sites=4", "data.patients=45", "data.validation=0.07", "data.test=0.66",
    "round.evaluate_every=0", "train.steps=16",
)  # fmt: skip
"""54 training and 114 test phantoms at each seed."""
MUON, ADAMW = ("optimizer=muon", "train.lr=0.05"), ("optimizer=adamw", "train.lr=0.01")
FRESH, AVERAGED = "optimizer.moments=fresh", "optimizer.moments=averaged"
POOL = "baselines=[pooled]"
EQUAL_ROWS = {
    "Muon, 12 rounds": (*EQUAL, *MUON, FRESH, "rounds=12", "baselines=[pooled,local]"),
    "Muon, 12 rounds, fp32": (*EQUAL, *MUON, FRESH, "rounds=12", "codec=fp32"),
    "Muon, 24 rounds of half as many steps": (*EQUAL, *MUON, FRESH, "rounds=24", "train.steps=8"),
    "Muon, 12 rounds, momentum averaged": (*EQUAL, *MUON, AVERAGED, "rounds=12"),
    "AdamW, 12 rounds, moments averaged": (*EQUAL, *ADAMW, AVERAGED, "rounds=12", POOL),
    "AdamW, 12 rounds, fp32": (*EQUAL, *ADAMW, "rounds=12", "codec=fp32", FRESH),
    "Muon, 48 rounds, momentum averaged": (*EQUAL, *MUON, AVERAGED, "rounds=48", POOL),
}
"""The last but one is plain FedAvg, whose bytes are the measure of the others'."""
BESIDE = {
    "Muon, 12 rounds": (
        "Muon, 12 rounds, fp32",
        "Muon, 24 rounds of half as many steps",
        "Muon, 12 rounds, momentum averaged",
    ),
    "AdamW, 12 rounds, moments averaged": ("AdamW, 12 rounds, fp32",),
}
"""Rows without pooled data of their own, by the row whose pooled data took the same samples."""
FACTS = ("model", "site", "patient", "scanner", "grade", "tumour_cm3")
BEST = "best"


def joined(folders: Mapping[int, Path]) -> dict[str, Any]:
    """One comparison over the test patients of all seeds, whose runs are in `folders`; another seed is other patients.

    Where a seed's best round is its last, that model is its best.
    """
    subjects: list[Subject] = []
    of_seeds: list[dict[str, Measures]] = []
    for seed, folder in folders.items():
        there, measured = read_scores(SimulationFolder(folder).scores, seed)
        subjects += there
        of_seeds.append(measured)
    if any(BEST in measured for measured in of_seeds):
        of_seeds = [{BEST: measured[FEDERATED], **measured} for measured in of_seeds]
    models = [model for model in of_seeds[0] if all(model in measured for measured in of_seeds)]
    union = {model: [values for measured in of_seeds for values in measured[model]] for model in models}
    _, run, _ = read_run(next(iter(folders.values())), "run")
    found = compare(run.task, run.data, subjects, union)
    means = [{m: fmean(values[found["metric"]] for values in each[m]) for m in models} for each in of_seeds]
    return found | {"by_seed": dict(zip(folders, means, strict=True))}


def read_scores(path: Path, seed: int) -> tuple[list[Subject], dict[str, Measures]]:
    """The patients of one run, and every model's measures of them; of each seed a patient is another."""
    subjects: dict[str, Subject] = {}
    measured: dict[str, Measures] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            volume = float(row["tumour_cm3"]) if row["tumour_cm3"] else None
            name = f"{seed}-{row['patient']}"
            subjects[name] = Subject(row["site"], name, row["scanner"] or None, row["grade"] or None, volume)
            values = {key: float(value) for key, value in row.items() if key not in FACTS and value}
            measured.setdefault(row["model"], []).append(values)
    return [*subjects.values()], measured


def section(found: Mapping[str, Any], metrics: Sequence[str], picture: str) -> list[str]:
    """The tables and sentences of the page, in Markdown; `picture` is where it finds the matrix."""
    own = found["own"]["metrics"]
    rows = {
        model: found["overall"][model]["metrics"] for model in (POOLED, FEDERATED, BEST) if model in found["matrix"]
    }
    number = found["overall"][FEDERATED]["patients"]
    lines = [f"{number} test patients, mean and 95% interval of a bootstrap by patient:\n"]
    lines += ["| model | " + " | ".join(metrics) + " |", "|" + "---|" * (len(metrics) + 1)]
    lines += [
        f"| {model} | " + " | ".join(with_interval(values[metric]) for metric in metrics) + " |"
        for model, values in {**rows, AT_HOME: own}.items()
    ]
    metric = found["metric"]
    lines += [f"\nFederated over pooled, {metric}: {with_interval(found['over_pooled'])} (n={number})."]
    each = [
        f"{means[FEDERATED]:.3f} over {means[POOLED]:.3f} with seed {seed}" for seed, means in found["by_seed"].items()
    ]
    lines += [f"By seed: {', '.join(each)}.\n"]
    lines += [f"| site | patients | test patients, all seeds | federated | own | gain, {metric} |", "|" + "---|" * 6]
    for site, patients in zip(found["sites"], PATIENTS, strict=True):
        federated, alone = (found["matrix"][model][site]["metrics"][metric] for model in (FEDERATED, OWN + site))
        gain = found["gains"][site]
        cells = (site, patients, gain["patients"], f"{federated:.3f}", f"{alone:.3f}", with_interval(gain, "+"))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    worst = found["worst_site"]
    lines += [f"\nThe federated model is worst at {worst['site']}: {worst['value']:.3f} (n={worst['patients']}).\n"]
    lines += [f"| {metric} by | group | n | pooled | federated |", "|" + "---|" * 5]
    for by, groups in found["subgroups"].items():
        for name, group in groups.items():
            figures = (with_interval(group["models"][model]) for model in (POOLED, FEDERATED))
            lines.append(f"| {by} | {name} | {group['patients']} | " + " | ".join(figures) + " |")
    return [*lines, "", f"![{metric.capitalize()} of every model on every site's test patients]({picture})"]


def rows_section(rows: Mapping[str, Mapping[int, Path]], metric: str) -> list[str]:
    """What each row, with the folder of its run at each seed, came to: the same patients in all rows."""
    head = (
        "run", "kB a site and round", "federated", "pooled", "each site's own", "sites that gain",
        "federated over pooled", "by seed",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, folders in rows.items():
        cells = [row, f"{fmean(map(traffic, folders.values())) / 1000:.0f}"]
        if all(SimulationFolder(folder).comparison.exists() for folder in folders.values()):
            found = joined(folders)
            models = {FEDERATED: found["overall"][FEDERATED]["metrics"], POOLED: found["overall"][POOLED]["metrics"]}
            cells += [with_interval(each[metric]) for each in models.values()]
            cells += (
                [with_interval(found["own"]["metrics"][metric]), gaining(found["gains"])]
                if "own" in found
                else ["", ""]
            )
            each = [means[FEDERATED] / means[POOLED] for means in found["by_seed"].values()]
            cells += [with_interval(found["over_pooled"]), ", ".join(f"{ratio:.3f}" for ratio in each)]
        else:
            pooled = joined(rows[next(like for like, same in BESIDE.items() if row in same)])["by_seed"]
            pairs = [(tested(out)[metric], pooled[seed][POOLED]) for seed, out in folders.items() if seed in pooled]
            mine, theirs = (fmean(values) for values in zip(*pairs, strict=True))
            each = [value / other for value, other in pairs]
            cells += [f"{mine:.3f}", "as above", "as above", "", f"{mine / theirs:.3f}"]
            cells += [", ".join(f"{ratio:.3f}" for ratio in each)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def gaining(gains: Mapping[str, Any]) -> str:
    """At how many sites the federated model is better than the site's own, and where it gains least."""
    by_mean = {site: gain["value"] for site, gain in gains.items()}
    least = min(by_mean, key=lambda site: by_mean[site])
    return f"{sum(gain > 0 for gain in by_mean.values())} of {len(gains)}, least {least} ({by_mean[least]:+.3f})"


def tested(folder: Path) -> dict[str, float]:
    """Metrics of the last model on the test patients of all sites."""
    test = next(event for event in read_events(SimulationFolder(folder).history) if event["event"] == "test")
    values: dict[str, float] = test["models"]["last"]["global"]
    return values


def traffic(folder: Path) -> float:
    """Bytes down and up, a site and round, of a run that evaluates in none."""
    events = read_events(SimulationFolder(folder).history)
    lines = [line for event in events if event["event"] == "round" for line in event["sites"].values()]
    return fmean(line["bytes_down"] + line["bytes_up"] for line in lines)


def draw(found: Mapping[str, Any]) -> "Figure":
    """The matrix: models down, sites across."""
    from matplotlib.figure import Figure

    metric, sites = found["metric"], found["sites"]
    models = [model for model in found["matrix"] if model != BEST]
    values = [[found["matrix"][model][site]["metrics"][metric] for site in sites] for model in models]
    figure = Figure(figsize=(1.6 + 0.85 * len(sites), 1.2 + 0.42 * len(models)), layout="constrained")
    axes = figure.subplots()
    known = [value for row in values for value in row if value is not None]
    image = axes.imshow([[inf if v is None else v for v in row] for row in values], cmap="cividis", aspect="auto")
    numbers = [found["matrix"][FEDERATED][site]["patients"] for site in sites]
    axes.set_xticks(range(len(sites)), [f"{site}\nn={number}" for site, number in zip(sites, numbers, strict=True)])
    axes.set_yticks(range(len(models)), models)
    axes.set_xlabel("test patients of")
    middle = (min(known) + max(known)) / 2
    for down, row in enumerate(values):
        for across, value in enumerate(row):
            if value is not None:
                colour = "black" if value > middle else "white"
                axes.text(across, down, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, label=metric.capitalize())
    axes.set_title("Models, and whose test patients they are measured on (synthetic)", fontsize=10)
    return figure
