"""The runs of `make results`: trained where they are not there, kept in outputs/results, and their figures."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path

from gliofed.shared.events import read_events
from gliofed.shared.parse import MALFORMED, ConfigError
from gliofed.shared.processes import cores
from gliofed.shared.run_folder import SimulationFolder
from gliofed.simulation.settings import parse_settings
from tests.benchmarks.results_tables import Table
from tests.benchmarks.step_time import composed, run_of, time_ratio
from tests.benchmarks.where_present import FILE, where_present

TEST = "data.test=0.2"
"""Of every row that says nothing else."""
ROOT = Path("outputs/results")
WEIGHTS = "model.safetensors"
SEEDS, FULL = (0, 1, 2), (0, 1, 2, 3, 4)
"""Of every table, and with --full."""


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
    if out.exists() and not is_of(out, words):
        print(f"{out}: damaged, or trained with other settings; made again", file=sys.stderr, flush=True)
        shutil.rmtree(out)
    if table.study and not finished(out):
        shutil.rmtree(out, ignore_errors=True)  # a private round that is tried again spends more than its row says
    if not finished(out):
        words = [*words, "at_once=1"]
        words = [f"resume={out}"] if (out / "run.json").exists() else [*words, f"out={out}"]
        print(f"{row}, seed {seed}: {' '.join(words)}", file=sys.stderr, flush=True)
        # gliofed-simulate of this folder: the command of that name may be another checkout's.
        command = [sys.executable, "-c", "from gliofed.simulation.cli import main; main()", *words]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode or not finished(out):
            sys.exit(f"make results: {row}, seed {seed} did not end well; look into {out}")
    if any(metric.endswith("_present") for metric in table.metrics):
        where_present(out)
    return figures(out, seed)


def train_all(runs: Sequence[tuple[Table, str, int]]) -> None:
    """Train each table's row at each seed, side by side.

    Rounds of rows that take as many seconds as others are measured first, where nothing else works.
    """
    for table, row, _ in runs:
        rounds_as_long(table, row)
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for done in as_completed([pool.submit(train, *run) for run in runs]):
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
    words, file = table.rows[row], rounds_file(table, row)
    if not file.exists():
        ratio = time_ratio(table.rows[table.as_long[row]], words)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"steps take": ratio, "rounds": ceil(ratio * run_of(words).rounds)}))
    return [f"rounds={json.loads(file.read_text())['rounds']}"]


def rounds_file(table: Table, row: str) -> Path:
    """Where they are kept."""
    return ROOT / table.data / f"{row.replace(' ', '-')}.json"


def is_of(out: Path, words: list[str]) -> bool:
    """Whether the run in `out` is what these overrides mean today."""
    values = composed(words)
    try:
        saved = json.loads((out / "run.json").read_text())
        there = {**saved["simulation"]["data"], "baselines": saved["simulation"]["baselines"]}
    except (OSError, *MALFORMED):
        return False
    asked = {**values["data"], "baselines": values["baselines"]}
    there, asked = ({key: each.get(key) for key in asked if key != "root"} for each in (there, asked))
    return bool(saved["config_hash"] == parse_settings(values)[0].hash and there == asked)


def folder(table: Table, row: str, seed: int) -> Path:
    return ROOT / table.data / f"{row.replace(' ', '-')}-{seed}"


def finished(out: Path) -> bool:
    """Whether the run ended, was tested, and has its model, and its references, where there were to be any."""
    files = SimulationFolder(out)
    try:
        events = read_events(files.history)
        references = json.loads(files.description.read_text())["simulation"].get("baselines")
    except (ConfigError, OSError, *MALFORMED):
        return False
    ended = events[-1:] == [{"event": "end", "status": "done"}] and any(event["event"] == "test" for event in events)
    return ended and (files.model / WEIGHTS).exists() and (not references or files.comparison.exists())


def figures(out: Path, seed: int) -> Run:
    events = read_events(out / "history.jsonl")
    rounds = [event for event in events if event["event"] == "round"]
    # safetensors: eight bytes with the length of a JSON header, which holds every tensor's shape.
    raw = (out / "model" / WEIGHTS).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
    model = next(event for event in events if event["event"] == "test")["models"]["last"]
    last = {name: value for name, value in model["global"].items() if value is not None}
    for site, line in model["sites"].items():
        last |= {f"{name} at {site}": value for name, value in (line["evaluate"] or {}).items() if value is not None}
    last |= where_present(out) if (out / FILE).exists() else {}
    return Run(seed, sum(event["seconds"] for event in rounds), max(ends) // 4, last)


def trained(table: Table) -> dict[str, list[Run]]:
    """The finished runs of each row that has one; what was trained with other settings is left out, and named."""
    runs: dict[str, list[Run]] = {}
    for row, seed in product(table.rows, FULL):
        out = folder(table, row, seed)
        if not finished(out):
            continue
        timed = row not in table.as_long or rounds_file(table, row).exists()
        if timed and is_of(out, overrides(table, row, seed)):
            runs.setdefault(row, []).append(figures(out, seed))
        else:
            print(f"{out}: trained with other settings; left out", file=sys.stderr, flush=True)
    return runs


def by_seed(runs: dict[str, list[Run]], metric: str) -> dict[str, dict[int, float]]:
    return {row: {run.seed: run.last[metric] for run in done if metric in run.last} for row, done in runs.items()}
