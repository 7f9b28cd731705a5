"""What hostile sites do to the model, under each fold: the table of docs/threats.md.

Every run is a whole federation of real code in this process, on mock volumes (synthetic). A run that is done is a line
of outputs/results/attacks/runs.jsonl and is not repeated. Runs that are attacked from a later round go on from one
checkpoint of the honest rounds before.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import load_file

from gliofed.client.doctor.manifest import admit
from gliofed.server.round.fold import FOLDS
from gliofed.server.round.sites import Federation
from gliofed.shared.codec import load_weights
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import open_cohort
from gliofed.shared.data.samples import whole
from gliofed.shared.files import append_line
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, model_of, reading_of
from gliofed.simulation.fault_mod import fault_mod
from gliofed.simulation.faults import Fault, parse_faults, stamp
from gliofed.simulation.local_engine import run_here
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.sites import make_sites

ROOT = Path("outputs/results/attacks")
PAGE = Path("docs/threats.md")
SEEDS = (0, 1, 2)
KEPT = 0.95
"""Share of the honest run's Dice that a fold should keep."""
ROUNDS, LATER = 9, 7
PATIENTS, MANY = 12, 48
"""Of each site; and those that the holder of the greatest share is agreed to have."""
WORDS = (
    "model=unet",
    "data=mock",
    "data.size=[16,16,16]",
    "data.patch=[16,16,16]",
    "data.radius_max=6",
    f"data.patients={PATIENTS}",
    "data.validation=0.5",
    f"rounds={ROUNDS}",
    f"round.evaluate_every={ROUNDS}",
    "round.join=5",
    "device=cpu",
)
STEPS, EPOCHS = ("train.steps=4",), ("train.steps=null", "train.epochs=1")
HOSTILE = {4: 1, 10: 2}
"""Sites, and how many of them attack: the first ones by name."""
ATTACKS = {
    "none": "honest",
    "flip:1": "sign flip",
    "flip:3": "sign flip, 3 times as large",
    "flip:19": "sign flip, 19 times as large",
    "bias:1.4": "the norm of an update on the last bias",
    "label_flip:1": "label flip",
    "label_flip:19": "label flip, 19 times as large",
    "backdoor:19": "backdoor, 19 times as large",
    "claim": "10^9 patients, no update",
    "zero": "two of four send zeros",
    "honest_greedy": "honest, one epoch a round",
    "greedy:19": "the greatest share, all steps, sign flip, 19 times as large",
}
GREEDY = ("honest_greedy", "greedy:19")
EVERY_FOLD = tuple(f"fold={name}" for name in FOLDS)


@dataclass(frozen=True)
class Run:
    """One federation."""

    sites: int
    seed: int
    fold: str
    """Overrides that choose it, such as fold=median."""
    attack: str
    since: int

    @property
    def hostile(self) -> int:
        return 0 if self.attack in ("none", "honest_greedy") else 2 if self.attack == "zero" else HOSTILE[self.sites]


def all_runs(folds: Sequence[str]) -> Iterator[Run]:
    """The default fold first, then seed by seed: what is cut short has whole rows of fewer seeds."""
    for some in (folds[:1], folds[1:]):
        for seed, sites, fold, attack in product(SEEDS, HOSTILE, some, ATTACKS):
            if attack != "zero" or sites == 4:
                for since in (1,) if attack in ("none", "honest_greedy") else (1, LATER):
                    yield Run(sites, seed, fold, attack, since)


class Bench:
    """The hospitals of one number of sites and one seed: written, checked and cached once."""

    def __init__(self, sites: int, seed: int) -> None:
        self.folder = ROOT / f"{sites}-{seed}"
        self.sites, self.seed = sites, seed
        self.hospitals: list[SiteConfig] = []

    def train(self, run: Run) -> dict[str, Any]:
        """Train, and return the honest sites' mean Dice after the last round."""
        out = self.folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        begun = self.folder / "begun" / f"{run.fold}-{run.attack in GREEDY}"
        if run.since > 1:
            if not begun.exists():  # every site fails in round 7: a checkpoint of round 6 is left
                self._federate(replace(run, attack="raise"), out, self.sites)
                out.rename(begun) if begun.parent.mkdir(parents=True, exist_ok=True) is None else None
            shutil.copytree(begun, out)
        self._federate(run, out, run.hostile)
        events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        last = [event for event in events if event["event"] == "round"][-1]
        assert last["round"] == ROUNDS, events[-1]
        honest = [site.name for site in self.hospitals][run.hostile or HOSTILE[run.sites] :]
        evaluated = [last["sites"][name]["evaluate"] for name in honest]
        dice = fmean(metrics["dice"] for metrics in evaluated if metrics)
        lines = [line for event in events if event["event"] == "round" for line in event["sites"].values()]
        return {
            "dice": dice,
            "triggered": self._triggered(run, out, honest[0]) if "backdoor" in run.attack else None,
            "refused": sum(line["status"] != "counted" for line in lines),
            "clipped": sum("clipped" in line for line in lines),
        }

    def _federate(self, run: Run, out: Path, hostile: int) -> None:
        config, values = composed(run)
        if not self.hospitals:
            work = self.folder / "hospitals"
            self.hospitals = make_sites(values["data"], config, parse_settings(values)[1], work, lambda *_: None)
        names = [site.name for site in self.hospitals]
        fault = {"honest_greedy": None, "none": None}.get(run.attack, f"{run.attack}@{run.since}")
        if run.attack == "raise":
            fault = f"raise@{LATER}"
        faults = parse_faults({name: fault for name in names[:hostile] if fault}, names, config)
        most = MANY if run.attack in GREEDY else PATIENTS
        agreed = {name: most if place < HOSTILE[run.sites] else PATIENTS for place, name in enumerate(names)}
        train_here(config, self.hospitals, agreed, out, faults)

    def _triggered(self, run: Run, out: Path, name: str) -> float:
        """Dice of one honest site's volumes with the trigger in them."""
        config, _ = composed(run)
        site = next(site for site in self.hospitals if site.name == name)
        model = model_of(config).eval()
        load_weights(model, load_file(out / "model" / "model.safetensors"))
        task, reading = TASKS[config.task], reading_of(config)
        cases = admit(site, config.data, config.task).cases
        dice = []
        with torch.no_grad():
            for patient in open_cohort(site, config.data, reading, cases).validation:
                volumes = (replace(v, image=stamp(v.image)) for v in whole(patient, config.data, reading))
                dice.append(task.measure(model, volumes, config.data, torch.device("cpu"))["dice"])
        return fmean(dice)


def train_here(
    config: RunConfig,
    hospitals: Sequence[SiteConfig],
    agreed: Mapping[str, int],
    out: Path,
    faults: Mapping[str, Fault] | None = None,
    run_id: str = "bench",
) -> list[dict[str, Any]]:
    """Train in this process, from the start or from a checkpoint in `out`; return the history."""
    site_of: Callable[..., SiteConfig] = lambda context: hospitals[int(context.node_config["partition-id"])]  # noqa: E731
    federation = Federation(config=config, out=out, run_id=run_id, agreed=lambda: agreed)
    out.mkdir(parents=True, exist_ok=True)
    run_here(federation, hospitals, 1, [fault_mod(faults, site_of, agreed)] if faults else [])
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def composed(run: Run) -> tuple[RunConfig, dict[str, Any]]:
    epochs = EPOCHS if run.attack in GREEDY else STEPS
    words = [*WORDS, *epochs, f"sites={run.sites}", f"seed={run.seed}", *run.fold.split()]
    with initialize_config_module("gliofed.configs", version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("simulation", words), resolve=True)
    return parse_settings(values)[0], values


@cache
def digest(sites: int, seed: int, fold: str, greedy: bool) -> str:
    """Of a run's settings, which change with the defaults; but for epochs, no attack is one of them."""
    return composed(Run(sites, seed, fold, "honest_greedy" if greedy else "none", 1))[0].hash


def digest_of(run: Run) -> str:
    return digest(run.sites, run.seed, run.fold, run.attack in GREEDY)


def results() -> dict[Run, dict[str, Any]]:
    """Runs that are done, with the settings of today."""
    path = ROOT / "runs.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {run: row for row in rows if row.get("of") == digest_of(run := Run(**row["run"]))}


def make(folds: Sequence[str] = EVERY_FOLD, only: Sequence[int] = tuple(HOSTILE)) -> None:
    """Train what is not there yet; of some numbers of sites alone, to share the work between processes."""
    torch.set_num_threads(1)
    ROOT.mkdir(parents=True, exist_ok=True)
    benches: dict[tuple[int, int], Bench] = {}
    for run in all_runs(folds):
        if run.sites in only and run not in results():
            bench = benches.setdefault((run.sites, run.seed), Bench(run.sites, run.seed))
            found = bench.train(run)
            append_line(ROOT / "runs.jsonl", json.dumps({"run": asdict(run), "of": digest_of(run), **found}))
            print(run, found, file=sys.stderr, flush=True)


def tables() -> dict[str, str]:
    """By the name of its place on the page, a table for each number of sites whose runs are all there."""
    found = results()
    whole = {sites: all(run in found for run in all_runs(EVERY_FOLD) if run.sites == sites) for sites in HOSTILE}
    return {f"attacks on {sites} sites": table(found, sites) for sites in HOSTILE if whole[sites]}


def table(found: Mapping[Run, Mapping[str, Any]], sites: int) -> str:
    """Dice of the honest sites over the seeds, attacked from round 1 and from a later one."""
    lines = [f"{HOSTILE[sites]} hostile of {sites} sites:\n", "| attack | from round | " + " | ".join(FOLDS) + " |"]
    lines.append("|---|---|" + "---|" * len(FOLDS))
    for attack, says in ATTACKS.items():
        for since in (1, LATER):
            cells = [cell(found, sites, fold, attack, since) for fold in EVERY_FOLD]
            if any(cells):
                since_says = "" if attack in ("none", "honest_greedy") else str(since)
                lines.append(f"| {says} | {since_says} | " + " | ".join(cell or "-" for cell in cells) + " |")
    return "\n".join([*lines, ""])


def cell(found: Mapping[Run, Mapping[str, Any]], sites: int, fold: str, attack: str, since: int) -> str:
    """Mean and lowest Dice; in brackets, of the honest run's mean; bold where that is below .95."""
    rows = {seed: found.get(Run(sites, seed, fold, attack, since)) for seed in SEEDS}
    dice = [row["dice"] for row in rows.values() if row]
    if not dice:
        return ""
    text = f"{fmean(dice):.3f}, lowest {min(dice):.3f}"
    reference = "honest_greedy" if attack in GREEDY else "none"
    if attack != reference:
        honest = [found.get(Run(sites, seed, fold, reference, 1)) for seed in rows if rows[seed]]
        if all(honest):
            share = fmean(dice) / fmean(row["dice"] for row in honest if row)
            text = f"{text} ({share:.2f})" if share >= KEPT else f"**{text} ({share:.2f})**"
    triggered = [row["triggered"] for row in rows.values() if row and row["triggered"] is not None]
    return (
        text
        + (f"; with the trigger {fmean(triggered):.3f}" if triggered else "")
        + ("" if len(dice) == len(SEEDS) else f"; {len(dice)} of {len(SEEDS)} seeds")
    )


if __name__ == "__main__":
    make(only=[int(word) for word in sys.argv[1:]] or tuple(HOSTILE))
