"""make results: train what docs/results.md compares, and write that page from the runs' histories.

Runs are kept in outputs/results: one that is finished is not repeated, one that was killed goes on (of the tables of
privacy: starts anew). Phantoms are written once a seed. As many runs as there are cores work side by side, each on one.
`--tables segmentation` makes one table; `--only-write` writes the page from the runs that are there; `--full` trains
five seeds.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean, stdev
from threading import Lock
from typing import Any

from gliofed.shared.processes import cores
from gliofed.shared.run_folder import SimulationFolder
from gliofed.simulation.settings import parse_settings
from tests.benchmarks import attacks, federation_results, honest, real_cases, together
from tests.benchmarks.pages import write_between
from tests.benchmarks.private_picture import draw
from tests.benchmarks.private_results import sentences
from tests.benchmarks.results_tables import TABLES, Table
from tests.benchmarks.step_time import composed, run_of, time_ratio
from tests.benchmarks.where_present import FILE, where_present

PAGE = Path("docs/results.md")
PICTURE = Path("docs/pictures/privacy.png")
MATRIX = Path("docs/pictures/federation.png")
TOGETHER = Path("docs/pictures/together.png")
TEST = "data.test=0.2"
"""Of every row that says nothing else."""
ROOT = Path("outputs/results")
SEEDS, FULL = (0, 1, 2), (0, 1, 2, 3, 4)
"""Of every table, and with --full."""
THREATS = {"attacks": attacks, "honest": honest}
"""Tables of docs/threats.md."""


@dataclass(frozen=True)
class Run:
    """One finished run."""

    seed: int
    seconds: float
    parameters: int
    last: dict[str, float]
    """The last round's metrics on test patients, pooled over the sites, and each site's own, as dice at site-2."""


def train(table: Table, row: str, seed: int) -> Run:
    """Return the run's figures; train first where it is not finished, or was trained with other settings."""
    out, words = folder(table, row, seed), overrides(table, row, seed)
    if (out / "run.json").exists() and not is_of(out, words):
        print(f"{out}: trained with other settings; made again", file=sys.stderr, flush=True)
        shutil.rmtree(out)
    if table.study and not finished(out):
        shutil.rmtree(out, ignore_errors=True)  # a private round that is tried again spends more than its row says
    if not finished(out):
        words = [*words, "at_once=1"]
        words = [f"resume={out}"] if (out / "run.json").exists() else [*words, f"out={out}"]
        print(f"{row}, seed {seed}: {' '.join(words)}", file=sys.stderr, flush=True)
        # gliofed-simulate of this folder: the command of that name may be another checkout's.
        command = [sys.executable, "-c", "from gliofed.simulation.cli import main; main()", *words]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"make results: {row}, seed {seed} did not end well; look into {out}")
    if any(metric.endswith("_present") for metric in table.metrics):
        where_present(out)
    return figures(out, seed)


def train_all(runs: Sequence[tuple[Table, str, int]]) -> None:
    """Train each table's row at each seed, side by side; of those that share phantoms the first alone begins.

    Rounds of rows that take as many seconds as others are measured first, where nothing else works.
    """
    for table, row, _ in runs:
        rounds_as_long(table, row)
    made: dict[str, Lock] = defaultdict(Lock)

    def one(run: tuple[Table, str, int]) -> None:
        data = overrides(*run)[-2]
        with made[data]:
            writes = not Path(data.removeprefix("data.root=")).exists()
            if writes:
                train(*run)
        if not writes:
            train(*run)

    with ThreadPoolExecutor(cores()) as pool:
        try:
            for done in as_completed([pool.submit(one, run) for run in runs]):
                done.result()
        finally:  # after a failure or Ctrl-C no further run begins
            pool.shutdown(cancel_futures=True)


def overrides(table: Table, row: str, seed: int) -> list[str]:
    # Sites of more or fewer patients are other phantoms; more or fewer sites are not.
    patients = [word.removeprefix("data.patients=") for word in table.rows[row] if word.startswith("data.patients=")]
    named = [
        re.sub(r"\W+", "-", each).strip("-") for each in patients
    ]  # a list has brackets, which Hydra reads in a path
    data = ROOT / "phantoms" / "-".join([table.data, *named, str(seed)])
    test = [] if any(word.startswith("data.test=") for word in table.rows[row]) else [TEST]
    return [*table.rows[row], *test, *rounds_as_long(table, row), f"seed={seed}", f"data.root={data}", "device=cpu"]


def rounds_as_long(table: Table, row: str) -> list[str]:
    """The rounds of a row that is trained for at least as many seconds as another; measured once, for a second time
    differs."""
    if row not in table.as_long:
        return []
    words, kept_in = table.rows[row], ROOT / table.data / f"{row.replace(' ', '-')}.json"
    if not kept_in.exists():
        ratio = time_ratio(table.rows[table.as_long[row]], words)
        kept_in.parent.mkdir(parents=True, exist_ok=True)
        kept_in.write_text(json.dumps({"steps take": ratio, "rounds": ceil(ratio * run_of(words).rounds)}))
    return [f"rounds={json.loads(kept_in.read_text())['rounds']}"]


def is_of(out: Path, words: list[str]) -> bool:
    """Whether the run in `out` is what these overrides mean today."""
    values = composed(words)
    saved = json.loads((out / "run.json").read_text())
    source = {key: saved["simulation"]["data"][key] for key in values["data"] if key != "root"}
    asked = {key: value for key, value in values["data"].items() if key != "root"}
    return bool(saved["config_hash"] == parse_settings(values)[0].hash and source == asked)


def folder(table: Table, row: str, seed: int) -> Path:
    return ROOT / table.data / f"{row.replace(' ', '-')}-{seed}"


def history(out: Path) -> list[dict[str, Any]]:
    path = out / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finished(out: Path) -> bool:
    """Whether the run ended, was tested, and has its references, where there were to be any."""
    events = history(out)
    ended = events[-1:] == [{"event": "end", "status": "done"}] and any(event["event"] == "test" for event in events)
    files = SimulationFolder(out)
    references = ended and json.loads(files.description.read_text())["simulation"].get("baselines")
    return ended and (not references or files.comparison.exists())


def figures(out: Path, seed: int) -> Run:
    rounds = [event for event in history(out) if event["event"] == "round"]
    # safetensors: eight bytes with the length of a JSON header, which holds every tensor's shape.
    raw = (out / "model" / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
    [test] = [event for event in history(out) if event["event"] == "test"]
    model = test["models"]["last"]
    last = {name: value for name, value in model["global"].items() if value is not None}
    for site, line in model["sites"].items():
        last |= {f"{name} at {site}": value for name, value in (line["evaluate"] or {}).items() if value is not None}
    last |= where_present(out) if (out / FILE).exists() else {}
    return Run(seed, sum(event["seconds"] for event in rounds), max(ends) // 4, last)


def write(tables: Sequence[str]) -> str:
    """The page, from the runs that are there."""
    page = PAGE.read_text() if PAGE.exists() else ""
    parts = ["# Results\n", lead() or kept_lead(page), INTRODUCTION]
    studies = []
    for name in tables:
        table = TABLES[name]
        runs = trained(table)
        before = "" if runs else kept(page, table.title)
        parts.append(before or section(name, table, runs))
        if table.study and runs:
            studies.append((table.study, by_seed(runs, table.metrics[0])))
    if studies:
        draw(studies).savefig(PICTURE, dpi=110)
    if PICTURE.exists():  # of this time or of an earlier one
        parts.append(f"![Dice and AUC by epsilon, sites and patients]({PICTURE.relative_to(PAGE.parent)})\n")
    if real := real_cases.section() or kept(page, real_cases.TITLE):
        parts.append(real)
    return "\n".join(parts)


def lead() -> str:
    """Three sentences and a picture, from the runs of uneven sites that are there; empty: there are none."""
    table = TABLES["federation"]
    folders = {run.seed: folder(table, row, run.seed) for row, runs in trained(table).items() for run in runs}
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
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |^!\[Dice and AUC|\Z)", page, re.S | re.M)
    return "" if found is None or "Not trained yet" in found[0] else found[0].strip() + "\n"


def trained(table: Table) -> dict[str, list[Run]]:
    """The finished runs of each row that has one."""
    runs = {}
    for row in table.rows:
        folders = [(seed, folder(table, row, seed)) for seed in FULL]
        if done := [figures(out, seed) for seed, out in folders if finished(out)]:
            runs[row] = done
    return runs


def by_seed(runs: dict[str, list[Run]], metric: str) -> dict[str, dict[int, float]]:
    return {row: {run.seed: run.last[metric] for run in done if metric in run.last} for row, done in runs.items()}


def section(name: str, table: Table, runs: dict[str, list[Run]]) -> str:
    head = [*table.heads, "seeds", "parameters", "seconds", *table.metrics]
    lines = [f"## {table.title}\n", f"{table.says} `make results ARGS='--tables {name}'`\n"]
    if not runs:
        return "\n".join([*lines, "Not trained yet where this page was written.\n"])
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
        lines += sentences(table.study, by_seed(runs, table.metrics[0]))
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
        says = f"better at all of {len(differences)} seeds"
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
`make results` trains everything on this page and writes it: three seeds a row, mean and standard deviation over
the seeds. A seed is other patients, other first weights and other patches. A killed `make results` goes on where
it was. Data are phantoms, but for the last table: **every figure above it is synthetic** and says nothing about
patients. Figures are those of the last round's model on the test patients of all sites, who neither train nor
validate; nothing is selected on them. HD95 is in mm; seconds are the wall time of the fastest seed on one core.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make results", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=[*TABLES, *THREATS, "real"], default=list(TABLES))
    parser.add_argument("--cases", type=Path, help="for --tables real: a folder of six cases of BraTS 2021")
    parser.add_argument("--only-write", action="store_true", help="train nothing")
    parser.add_argument("--full", action="store_true", help="also two more seeds")
    arguments = parser.parse_args()
    for name in [name for name in arguments.tables if name in THREATS]:  # of another page, and longer
        if not arguments.only_write:
            THREATS[name].make()
        write_between(attacks.PAGE, name, THREATS[name].table(), "make results")
        print(f"written: {attacks.PAGE}")
    if "real" in arguments.tables and not arguments.only_write:
        if arguments.cases is None:
            parser.error("--tables real: give --cases DIR as well, a folder of six cases of BraTS 2021")
        real_cases.make(arguments.cases)
    named = [name for name in arguments.tables if name in TABLES]
    if not {*named, *arguments.tables} - {*THREATS}:
        return
    if not arguments.only_write:
        seeds = FULL if arguments.full else SEEDS
        train_all([(TABLES[name], row, seed) for name in named for row in TABLES[name].rows for seed in seeds])
    PAGE.write_text(write(list(TABLES)))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
