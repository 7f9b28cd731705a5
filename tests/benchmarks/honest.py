"""What the bounds on updates cost an honest run: paired differences in Dice, with them and without, over ten seeds.

Mock volumes (synthetic), one pool of patients, and others that nobody trains on to measure with. A run in which no
bound was met is the same run without them, bit for bit (a test has that), and is not trained twice; a private one has
noise of its own in each arm. Runs that are done are lines of outputs/results/honest/runs.jsonl.
"""

import json
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import load_file

from gliofed.client.doctor.manifest import admit
from gliofed.shared.codec import load_weights
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import open_cohort
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.samples import whole
from gliofed.shared.files import append_line
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, model_of, reading_of
from gliofed.simulation.partition import FETS, site_names
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.sites import make_sites
from tests.benchmarks.attacks import train_here

ROOT = Path("outputs/results/honest")
SEEDS = range(10)
HELD_OUT = 40
FOLDERS, POOL = 4, 1000
"""Folders of patients, and patients in each: a site is parted off one of them."""
WORDS = (
    "model=unet",
    "data=mock",
    "data.size=[16,16,16]",
    "data.patch=[16,16,16]",
    "data.radius_max=6",
    f"data.patients={POOL}",
    "data.validation=0",
    "round.evaluate_every=0",
    "round.join=5",
    "round.deadline=86400",  # of all sites of a round, one after the other: a busy machine makes nobody late
    "device=cpu",
)
UNBOUNDED = ("fold.clip=null", "fold.max_share=1")


@dataclass(frozen=True)
class Setting:
    """One federation of honest sites."""

    patients: tuple[int, ...]
    """Of each site."""
    words: tuple[str, ...]
    says: str


SETTINGS = {
    "steps": Setting((12, 12, 12, 12), ("train.steps=4", "rounds=3"), "4 sites of 12, 4 steps a round"),
    "epochs": Setting(
        (4, 8, 16, 32),
        ("train.steps=null", "train.epochs=1", "rounds=2"),
        "sites of 4, 8, 16 and 32, one epoch a round",
    ),
    "unequal": Setting(
        (1, 2, 13, 440),
        ("train.steps=null", "train.epochs=1", "rounds=1", "data.noise=1.5"),
        "sites of 1, 2, 13 and 440, one epoch a round, noisy scans",
    ),
    "unequal_steps": Setting(
        (1, 2, 13, 440),
        ("train.steps=4", "rounds=3"),
        "sites of 1, 2, 13 and 440, 4 steps a round",
    ),
    "fets": Setting(
        tuple(FETS["fets2022_1"]),
        ("train.steps=4", "rounds=3"),
        "23 sites with the counts of FeTS 2022, 4 steps a round",
    ),
    "dp_sgd": Setting(
        (4, 1000, 1000, 1000),
        (
            *("privacy=dp_sgd", "privacy.epsilon=1", "privacy.batch=32", "privacy.patches=1"),
            *("privacy.lr=10", "privacy.momentum=0.5", "privacy.schedule=linear", "train.steps=4", "rounds=2"),
            "data.noise=1.5",
        ),
        "dp_sgd at epsilon 1, sites of 4, 1000, 1000 and 1000, 4 steps a round, noisy scans",
    ),
}


def composed(setting: Setting, seed: int, bounded: bool) -> tuple[RunConfig, dict[str, Any]]:
    sites = f"sites={max(FOLDERS, len(setting.patients))}"
    words = [*WORDS, *setting.words, sites, f"seed={seed}", *(() if bounded else UNBOUNDED)]
    with initialize_config_module("gliofed.configs", version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("simulation", words), resolve=True)
    return parse_settings(values)[0], values


@dataclass
class Folder:
    """Patients of the pool in one folder, some of them taken."""

    site: SiteConfig
    names: list[str]

    def take(self, name: str, count: int, work: Path) -> SiteConfig:
        taken, self.names = self.names[:count], self.names[count:]
        return replace(self.site, name=name, patients=tuple(taken), work=str(work.resolve()))


def pool(setting: Setting) -> list[Folder]:
    """All patients in such noise, written once."""
    config, values = composed(replace(setting, patients=()), 0, True)
    root = ROOT / f"pool-{values['data']['noise']}"
    settings = replace(parse_settings(values)[1], sites=FOLDERS, device="cpu", threads=1)
    sites = make_sites(values["data"], config, settings, root, lambda *_: None)
    named = [sorted({case.patient for case in find_cases(Path(site.root), site.labels)}) for site in sites]
    return [Folder(site, names) for site, names in zip(sites, named, strict=True)]


def hospitals(name: str, everybody: list[Folder]) -> tuple[list[SiteConfig], SiteConfig]:
    """Hospitals that part the pool, and patients that are held out to measure with."""
    folders = [Folder(folder.site, folder.names) for folder in everybody]
    held_out = folders[-1].take("held-out", HELD_OUT, ROOT / name / "held-out")
    sizes = sorted(enumerate(SETTINGS[name].patients, start=1), key=lambda item: -item[1])  # the largest fit first
    made = {}
    for number, count in sizes:
        folder = next(folder for folder in folders if len(folder.names) >= count)
        named = site_names(len(sizes))[number - 1]  # which the run expects
        made[number] = folder.take(named, count, ROOT / name / named)
    return [made[number] for number in sorted(made)], held_out


def dice(out: Path, config: RunConfig, held_out: SiteConfig) -> float:
    model = model_of(config).eval()
    load_weights(model, load_file(out / "model" / "model.safetensors"))
    task, reading = TASKS[config.task], reading_of(config)
    patients = open_cohort(held_out, config.data, reading, admit(held_out, config.data, config.task).cases).train
    with torch.no_grad():
        found = [
            task.measure(model, whole(patient, config.data, reading), config.data, torch.device("cpu"))["dice"]
            for patient in patients
        ]
    return fmean(found)


def train(name: str, seed: int, everybody: list[Folder]) -> dict[str, Any]:
    """Train with the bounds, and without where one was met."""
    setting, found = SETTINGS[name], {}
    sites, held_out = hospitals(name, everybody)
    # In a private run the noisy number counts, as far as the agreed one, which a hospital rounds up.
    agreed = {site.name: len(site.patients or ()) + (40 if name == "dp_sgd" else 0) for site in sites}
    refused = 0
    for arm, bounded in (("bounded", True), ("unbounded", False)):
        out = ROOT / name / "run"
        shutil.rmtree(out, ignore_errors=True)
        for site in sites:  # each run of a study of its own: ten would spend one budget ten times
            shutil.rmtree(Path(site.work) / "ledger", ignore_errors=True)
        config, _ = composed(setting, seed, bounded)
        events = train_here(config, sites, agreed, out, run_id=f"{name}-{seed}-{arm}")
        found[arm] = dice(out, config, held_out)
        lines = [line for event in events if event["event"] == "round" for line in event["sites"].values()]
        refused += sum(line["status"] != "counted" for line in lines)
        if bounded:
            sizes = [line["size"] for line in lines if "size" in line]
            found["sizes"] = [min(sizes), max(sizes)]
            met = sum({"clipped", "peak", "clipped_buffers", "share_before"} & line.keys() for line in lines)
            if not met:
                return found | {"unbounded": found[arm], "met": 0, "refused": refused}
    return found | {"met": met, "refused": refused}


@cache
def digest(name: str, seed: int) -> str:
    """Of a run's settings, which change with the defaults."""
    return composed(SETTINGS[name], seed, True)[0].hash


def results() -> Iterator[dict[str, Any]]:
    """Runs that are done, with the settings of today."""
    path = ROOT / "runs.jsonl"
    rows = (json.loads(line) for line in path.read_text().splitlines()) if path.exists() else ()
    yield from (row for row in rows if row.get("of") == digest(row["setting"], row["seed"]))


def make(settings: Sequence[str] = tuple(SETTINGS)) -> None:
    torch.set_num_threads(1)
    done = {(row["setting"], row["seed"]) for row in results()}
    for name in settings:
        everybody = pool(SETTINGS[name])
        for seed in SEEDS:
            if (name, seed) not in done:
                row = {"setting": name, "seed": seed, "of": digest(name, seed), **train(name, seed, everybody)}
                append_line(ROOT / "runs.jsonl", json.dumps(row))
                print(row, file=sys.stderr, flush=True)


def tables() -> dict[str, str]:
    """By the name of its place on the page, the table, if its runs are all there."""
    there = {(row["setting"], row["seed"]) for row in results()}
    return {"honest": table()} if there >= {*product(SETTINGS, SEEDS)} else {}


def table() -> str:
    """The table: mean with and without the bounds, the paired difference and its 95% interval by Student's t."""
    from scipy.stats import t

    head = ("federation", "n", "without", "with", "difference, 95% interval", "sizes", "met, refused")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, setting in SETTINGS.items():
        rows = [row for row in results() if row["setting"] == name]
        if not rows:
            continue
        differences = [row["bounded"] - row["unbounded"] for row in rows]
        n, mean = len(rows), fmean(differences)
        half = t.ppf(0.975, n - 1) * stdev(differences) / math.sqrt(n) if n > 1 else math.nan
        without, bounded = (fmean(row[arm] for row in rows) for arm in ("unbounded", "bounded"))
        met, refused = (sum(row[key] for row in rows) for key in ("met", "refused"))
        lines.append(
            f"| {setting.says} | {n} | {without:.3f} | {bounded:.3f} | {mean:+.4f}, {mean - half:+.4f} to "
            f"{mean + half:+.4f} | {min(row['sizes'][0] for row in rows):.2g} to "
            f"{max(row['sizes'][1] for row in rows):.2g} | {met}, {refused} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    make(sys.argv[1:] or list(SETTINGS))
    print(table())
