"""docs/results.md on real cases that you have: three hospitals of one training case each, in two folds.

`make results ARGS='--tables real --cases DIR'`, where DIR has six folders of BraTS 2021, such as BraTS2021_00006. They
are read where they are, and the copies that the sites prepared are removed after the run.
"""

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gliofed.server.round.history import History
from gliofed.shared.run_folder import SimulationFolder
from tests.benchmarks.federation_results import tested

ROOT = Path("outputs/results/real")
IMAGES = ("flair", "t1", "t1ce", "t2")
HOSPITALS = 3
WORDS = (
    "experiment=brats_small", "data=folder", "data.labels=brats2020", "data.test=0", f"sites={HOSPITALS}",
    "partition=by_scanner", "train.steps=27", "round.evaluate_every=0", "device=cpu",
    "report.page=false",
)  # fmt: skip
"""About as many steps in all as experiment=brats_small has at one of its sites."""
TITLE = "Public real cases"
SAYS = (
    "Six public cases of BraTS 2021, in two folds: three hospitals of one case each train `experiment=brats_small` "
    "together (12 rounds of 27 steps), and the other three cases test. These figures are **not "
    "synthetic**, and so few cases say little about what a federation would learn; they show that everything works "
    "on real scans, and whether each region is found at all. gliofed carries none of these cases. "
    "`make results ARGS='--tables real --cases DIR'`"
)
METRICS = ("dice", "dice_et", "dice_tc", "dice_wt", "hd95")


def make(cases: Path) -> None:
    """Train both folds that are not there yet."""
    names = sorted(path.name for path in cases.iterdir() if path.is_dir())
    if len(names) != 2 * HOSPITALS:
        sys.exit(f"{cases}: has {len(names)} folders; give a folder with six cases of BraTS 2021")
    for fold in (0, 1):
        out, data = ROOT / f"fold-{fold}", ROOT / f"cases-{fold}"
        if finished(out):
            continue
        shutil.rmtree(out, ignore_errors=True)
        data.mkdir(parents=True, exist_ok=True)
        with (data / "cases.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows(cases.resolve(), names, fold))
        words = (*WORDS, f"data.root={data}", f"out={out}")
        command = [sys.executable, "-c", "from gliofed.simulation.cli import main; main()", *words]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"make results: {out} did not end well; look into it")
        shutil.rmtree(out / "sites")


def rows(cases: Path, names: Sequence[str], fold: int) -> Iterator[tuple[str | Path, ...]]:
    """Of cases.csv: every second case trains, and each hospital has one that trains and one that tests."""
    yield ("patient", *IMAGES, "mask", "scanner", "split")
    for place, name in enumerate(names):
        files = (cases / name / f"{name}_{kind}.nii.gz" for kind in (*IMAGES, "seg"))
        yield (name, *files, f"hospital {place // 2}", "training" if place % 2 == fold else "test")


def finished(out: Path) -> bool:
    """Whether a fold's run ended well."""
    last = History(SimulationFolder(out).history).events()[-1:]
    return bool(last) and last[0]["event"] == "end" and last[0]["status"] == "done"


def section() -> str:
    """Of the page: a row for each fold, and their mean; empty where nothing is trained."""
    folds = [tested(ROOT / f"fold-{fold}") for fold in (0, 1) if finished(ROOT / f"fold-{fold}")]
    if len(folds) < 2:
        return ""
    mean = {metric: (folds[0][metric] + folds[1][metric]) / 2 for metric in METRICS}
    lines = [f"## {TITLE}\n", f"{SAYS}\n"]
    lines += ["| fold | n | " + " | ".join(METRICS) + " |", "|" + "---|" * (len(METRICS) + 2)]
    for name, number, values in (("first", 3, folds[0]), ("second", 3, folds[1]), ("both", 6, mean)):
        lines.append(f"| {name} | {number} | " + " | ".join(f"{values[metric]:.3f}" for metric in METRICS) + " |")
    return "\n".join([*lines, ""])
