"""docs/results.md, from the runs that are there; a section stays as it is until all of its usual ones are."""

import re
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

from tests.benchmarks import federation_results, real_cases, together
from tests.benchmarks.private_picture import NAMES, draw
from tests.benchmarks.private_results import sentences
from tests.benchmarks.results_runs import FULL, SEEDS, Run, by_seed, folder, trained
from tests.benchmarks.results_tables import TABLES, Table, usual_rows

PAGE = Path("docs/results.md")
PICTURES = Path("docs/pictures")
MATRIX, TOGETHER = PICTURES / "federation.png", PICTURES / "together.png"


def write(tables: Sequence[str]) -> str:
    """The page, from the runs that are there."""
    page = PAGE.read_text() if PAGE.exists() else ""
    runs = {name: trained(TABLES[name]) for name in tables}
    stands = {name: stays(page, name, runs[name]) for name in tables}
    parts = ["# Results\n", kept_lead(page) if stands["federation"] else lead(runs["federation"]), INTRODUCTION]
    parts += [stands[name] or section(name, TABLES[name], runs[name]) for name in tables]
    if real := real_cases.section() or kept(page, real_cases.TITLE):
        parts.append(real)
    return "\n".join(parts)


def stays(page: str, name: str, runs: Mapping[str, Sequence[Run]]) -> str:
    """The table's section of the page, where it has one and not every usual row is there at every usual seed."""
    title, there = TABLES[name].title, [(row, run.seed) for row, done in runs.items() for run in done]
    lacks = [each for each in product(usual_rows(name), SEEDS) if each not in there]
    standing = kept(page, title) if lacks else ""
    if standing and runs:
        row, seed = lacks[0]
        print(f"{PAGE}: '{title}' stays as it is: {row}, seed {seed}, is not there", file=sys.stderr, flush=True)
    return standing


def lead(runs: Mapping[str, Sequence[Run]]) -> str:
    """Three sentences and a picture, from the runs of uneven sites that are there; empty: there are none."""
    table = TABLES["federation"]
    folders = {run.seed: folder(table, row, run.seed) for row, done in runs.items() for run in done}
    if not folders:
        return ""
    found = federation_results.joined(folders)
    together.draw(found, federation_results.PATIENTS).savefig(TOGETHER, dpi=110)
    seen = "Tumour overlap at each hospital, trained alone and together"
    return f"{together.sentences(found, federation_results.PATIENTS)}\n![{seen}]({TOGETHER.relative_to(PAGE.parent)})\n"


def kept_lead(page: str) -> str:
    """What the page begins with, of runs that are not there any more."""
    found = re.match(r"# Results\n\n(.*?)(?=^`make results`)", page, re.S | re.M)
    return found[1].rstrip("\n") + "\n" if found and found[1] else ""


def kept(page: str, title: str) -> str:
    """A section of the page as it stands, of runs that are not there any more; empty where the page has none."""
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.S | re.M)
    return "" if found is None or "Not trained yet" in found[0] else found[0].strip() + "\n"


def section(name: str, table: Table, runs: dict[str, list[Run]]) -> str:
    head = [*table.heads, "seeds", "parameters", "seconds", *table.metrics]
    lines = [f"## {table.title}\n", f"{table.says} `make results ARGS='--tables {name}'`\n"]
    if not runs:
        return "\n".join([*lines, "Not trained yet.\n"])
    if table.references:
        folders = {row: {run.seed: folder(table, row, run.seed) for run in done} for row, done in runs.items()}
        if table.references == "rows":
            return "\n".join([*lines, *federation_results.rows_section(folders, table.metrics[0]), ""])
        found = federation_results.joined(next(iter(folders.values())))
        federation_results.draw(found).savefig(MATRIX, dpi=110)
        relative = str(MATRIX.relative_to(PAGE.parent))
        return "\n".join([*lines, *federation_results.section(found, table.metrics, relative), ""])
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, done in runs.items():
        cells = [
            *table.cells(row),
            str(len(done)),
            f"{done[0].parameters:,}",
            f"{min(run.seconds for run in done):.0f}",
        ]
        cells += [spread([run.last[metric] for run in done if metric in run.last]) for metric in table.metrics]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [verdict(runs, table.metrics[0], *pair) for pair in table.better if set(pair) <= runs.keys()]
    if table.study:
        scores = by_seed(runs, table.metrics[0])
        picture = PICTURES / f"{name}.png"
        draw(table.study, scores).savefig(picture, dpi=110)
        seen = f"{NAMES[table.study.metric]} by epsilon, sites and patients"
        lines += [*sentences(table.study, scores), f"\n![{seen}]({picture.relative_to(PAGE.parent)})"]
    return "\n".join(lines) + "\n"


def verdict(runs: dict[str, list[Run]], metric: str, first: str, second: str) -> str:
    """Say which of two rows is better, from the differences at the seeds that both have."""
    scores = [by_seed(runs, metric)[row] for row in (first, second)]
    differences = [scores[0][seed] - scores[1][seed] for seed in FULL if all(seed in score for score in scores)]
    head = f"- {first} against {second}, {metric}: "
    if not differences:
        return head + "no seed in common yet."
    mean, each = fmean(differences), ", ".join(f"{value:+.3f}" for value in differences)
    if all(value > 0 for value in differences):
        says = "better, at one seed only" if len(differences) == 1 else f"better at all of {len(differences)} seeds"
    elif all(value <= 0 for value in differences):
        says = f"**not better** at any of {len(differences)} seeds"
    else:
        says = (
            f"**not clearly better**: the sign changes with the seed, the mean is {'above' if mean > 0 else 'below'} 0"
        )
    return f"{head}{mean:+.3f} ({each}); {says}."


def spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


INTRODUCTION = """\
`make results` trains most rows of this page and writes it: three seeds a row, mean and standard deviation over the
seeds. That takes about three hours on two cores. `make results ARGS=--full` trains all rows, at five seeds, in about
nine hours, by the sum of the seconds below; the command beside a table trains all rows of that table. What was killed
goes on where it was. A seed is other patients, other first weights and other patches. Data are phantoms, but
for the last table: **every figure above it is synthetic** and says nothing about patients. Figures are those of the
last round's model on all sites' test patients, who are used neither to train nor to validate; nothing is selected on
them. HD95 is in mm; seconds are the wall time of the fastest seed on one core, and rough: the machine was also busy,
and tables were trained on several machines.
"""
