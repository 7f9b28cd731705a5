"""make results: train what docs/results.md compares, and write that page from the runs' histories.

Runs are kept in outputs/results: one that is finished is not repeated, one that was killed goes on. Phantoms are
written once a seed. `--tables seed2` makes one table; `--only-write` writes the page from the runs that are there.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from simulation.settings import parse_settings

PAGE = Path("docs/results.md")
ROOT = Path("outputs/results")
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Table:
    """One comparison: the same data, steps and seeds for every row."""

    title: str
    says: str
    data: str
    """Folder of its phantoms; one a seed."""
    rows: dict[str, tuple[str, ...]]
    """What differs, as overrides of gliofed-simulate."""
    metrics: tuple[str, ...]
    better: tuple[tuple[str, str], ...]
    """Pairs of rows: the first is expected to be better than the second, by the first metric."""


def grading_rows() -> dict[str, tuple[str, ...]]:
    """Ours, then as published, which takes about 2.2 times as long a step, cnn3 nearly three times."""
    encoders = ("cnn1", "cnn2", "cnn3")
    ours = {name: (f"experiment=seed3_{name}",) for name in encoders}
    published = {f"{name} as published": (*ours[name], "model.as_published=true") for name in encoders}
    return ours | published | {"cnn3 for longer": (*ours["cnn3"], "rounds=22")}


TABLES = {
    "seed2": Table(
        "Tumour segmentation: U-Net and LSTM-U-Net",
        "Phantoms at 4 mm, two sites of 30 patients, the same steps. LSTM-U-Net makes its mask three times, which "
        "takes longer; so the U-Net is trained once more, for about as many seconds.",
        "segmentation",
        {
            "unet": ("experiment=seed2_unet",),
            "unet for longer": ("experiment=seed2_unet", "rounds=22"),
            "lstm_unet": ("experiment=seed2_lstm_unet",),
        },
        ("dice", "dice_et", "dice_tc", "dice_wt", "jaccard", "recall", "precision", "hd95"),
        (("lstm_unet", "unet"), ("lstm_unet", "unet for longer")),
    ),
    "seed3": Table(
        "Grading: the three encoders, ours and as published",
        "Phantoms at 4 mm, two sites of 100 patients, the same steps. As published: BatchNorm, the last block "
        "normalised, plain average pooling, no strided first convolution, which takes longer; so our cnn3 is trained "
        "once more, for about as many seconds.",
        "grading",
        grading_rows(),
        ("auc", "accuracy", "sensitivity", "specificity", "f1", "loss"),
        (
            ("cnn3", "cnn2"),
            ("cnn2", "cnn1"),
            *((f"cnn{n}", f"cnn{n} as published") for n in (1, 2, 3)),
            ("cnn3 for longer", "cnn3 as published"),
        ),
    ),
}


@dataclass(frozen=True)
class Run:
    """One finished run."""

    seed: int
    seconds: float
    parameters: int
    last: dict[str, float]
    """The last round's metrics, pooled over the sites."""


def train(table: Table, row: str, seed: int) -> Run:
    """Return the run's figures; train first where it is not finished, or was trained with other settings."""
    out, words = folder(table, row, seed), overrides(table, row, seed)
    if (out / "run.json").exists() and not is_of(out, words):
        print(f"{out}: trained with other settings; made again", file=sys.stderr, flush=True)
        shutil.rmtree(out)
    if not finished(out):
        command = [str(Path(sys.executable).with_name("gliofed-simulate"))]
        command += [f"resume={out}"] if (out / "run.json").exists() else [*words, f"out={out}"]
        print(f"{row}, seed {seed}: {' '.join(command[1:])}", file=sys.stderr, flush=True)
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"make results: {row}, seed {seed} did not end well; look into {out}")
    return figures(out, seed)


def overrides(table: Table, row: str, seed: int) -> list[str]:
    data = ROOT / "phantoms" / f"{table.data}-{seed}"
    return [*table.rows[row], f"seed={seed}", f"data.root={data}", "device=cpu"]


def is_of(out: Path, words: list[str]) -> bool:
    """Whether the run in `out` is what these overrides mean today."""
    with initialize_config_module("configs", version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("simulation", words), resolve=True)
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
    return any(event == {"event": "end", "status": "done"} for event in history(out)[-1:])


def figures(out: Path, seed: int) -> Run:
    rounds = [event for event in history(out) if event["event"] == "round"]
    # safetensors: eight bytes with the length of a JSON header, which holds every tensor's shape.
    raw = (out / "model" / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
    last = {name: value for name, value in rounds[-1]["global"].items() if value is not None}
    return Run(seed, sum(event["seconds"] for event in rounds), max(ends) // 4, last)


def write(tables: Sequence[str]) -> str:
    """The page, from the runs that are there."""
    parts = [INTRODUCTION]
    for name in tables:
        table, runs = TABLES[name], {}
        for row in table.rows:
            folders = [(seed, folder(table, row, seed)) for seed in SEEDS]
            if done := [figures(out, seed) for seed, out in folders if finished(out)]:
                runs[row] = done
        parts.append(section(name, table, runs))
    return "\n".join(parts)


def section(name: str, table: Table, runs: dict[str, list[Run]]) -> str:
    head = ["model", "seeds", "parameters", "seconds", *table.metrics]
    lines = [f"## {table.title}\n", f"{table.says} `make results ARGS='--tables {name}'`\n"]
    if not runs:
        return "\n".join([*lines, "Not trained yet where this page was written.\n"])
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row, done in runs.items():
        cells = [row, str(len(done)), f"{done[0].parameters:,}", f"{min(run.seconds for run in done):.0f}"]
        cells += [spread([run.last[metric] for run in done if metric in run.last]) for metric in table.metrics]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    lines += [verdict(runs, table.metrics[0], *pair) for pair in table.better if set(pair) <= runs.keys()]
    return "\n".join(lines) + "\n"


def verdict(runs: dict[str, list[Run]], metric: str, first: str, second: str) -> str:
    """Say which of two rows is better, from the differences at the seeds that both have."""
    scores = [{run.seed: run.last[metric] for run in runs[row] if metric in run.last} for row in (first, second)]
    differences = [scores[0][seed] - scores[1][seed] for seed in SEEDS if all(seed in score for score in scores)]
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


INTRODUCTION = """# Results

`make results` trains everything on this page and writes it: three seeds a row, mean and standard deviation over the
seeds. A seed is other patients, other first weights and other patches. A killed `make results` goes on where it was.
All data are phantoms: **every figure is synthetic** and says nothing about patients. Figures are those of the last
round, on the validation patients of all sites; nothing is selected on them. HD95 is in mm; seconds are
the wall time of the fastest seed on two cores.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="make results", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--only-write", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if not arguments.only_write:
        for seed in SEEDS:  # seed by seed: a run that is cut short has whole rows of fewer seeds
            for name in arguments.tables:
                for row in TABLES[name].rows:
                    train(TABLES[name], row, seed)
    PAGE.write_text(write(list(TABLES)))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
