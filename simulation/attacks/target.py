"""A finished simulated run, opened to be attacked: what was trained, on whom, and the model that came out."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from gliofed.client.doctor.manifest import admit
from gliofed.client.round.ledger import read_ledger
from gliofed.client.round.privacy import Plan, plan_round
from gliofed.server.round.history import History
from gliofed.shared.accounting import default_delta
from gliofed.shared.algorithms import kept_of
from gliofed.shared.codec import CodecError, load_weights, weights_from_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Cohort, Patient, open_cohort
from gliofed.shared.files import absolute
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import ModelFolder, SimulationFolder
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import model_of, reading_of
from gliofed.simulation.attacks.settings import AttackConfig
from gliofed.simulation.ending import resume_command
from gliofed.simulation.partition import site_names
from gliofed.simulation.settings import read_run
from gliofed.simulation.sites import make_sites


@dataclass(frozen=True)
class Target:
    """A run to attack. `sites` and `cohorts` go together, and are those whose updates came into the model."""

    folder: Path
    label: str
    """How it was protected, as in "dp_sgd, epsilon 8"."""
    run: RunConfig
    sites: list[SiteConfig]
    cohorts: list[Cohort]
    weights: bytes
    """The final model, as safetensors."""
    note: str
    """What must be said of its figures: "synthetic data", or nothing."""

    def model(self) -> nn.Module:
        """Build the final model, in evaluation mode, on the CPU."""
        model = model_of(self.run)
        load_weights(model, weights_from_bytes(self.weights))
        return model.eval()

    @property
    def patients(self) -> list[tuple[Patient, bool]]:
        """Every patient of every site, in order, and whether the model was trained on them."""
        of_sites = [
            [(patient, True) for patient in cohort.train] + [(patient, False) for patient in cohort.validation]
            for cohort in self.cohorts
        ]
        return [patient for site in of_sites for patient in site]


def plan_of(target: Target) -> tuple[Plan, float]:
    """The private steps of a round at the run's first site, as its ledger has them, and the ledger's delta.

    Without privacy: what the run's settings would make of them. Raises ConfigError where the ledger is gone.
    """
    site, run = target.sites[0], target.run
    if not run.private:
        delta = default_delta(len(target.cohorts[0].train))
        return plan_round(run, 1, len(target.cohorts[0].train), delta), delta
    ledger = read_ledger(site.folder.ledger)
    charge = next((charge for charge in ledger.charges if charge.what == "train"), None) if ledger else None
    if ledger is None or charge is None:
        raise ConfigError(f"run={target.folder}: the ledger of {site.name} is gone; put it back from a copy")
    return Plan(sigma=charge.sigma, rate=charge.rate, steps=charge.steps, lr=run.privacy.lr), ledger.delta


def open_target(folder: Path, attack: AttackConfig) -> Target:
    """Open the run in `folder`; scans are read from where the run had them.

    Raises ConfigError where there is no finished run, or its scans are gone; DataError where they were changed.
    """
    folder = absolute(folder)
    saved, run, settings = read_run(folder, "run")
    if kept_of(run):
        sentence = f"algorithm={run.algorithm.name} with optimizer.moments={run.optimizer.moments} keeps state at sites"
        raise ConfigError(f"run={folder}: {sentence}, which attacks know nothing of; attack a run without")
    data, weights = saved["simulation"]["data"], _weights(folder, run)
    _check_data(folder, data, site_names(settings.sites))
    # What the check says of each case left out is in the site's own log since the run; not again on the screen.
    logging.getLogger("gliofed.site").addHandler(logging.NullHandler())
    here, counted = replace(settings, device=attack.device, threads=attack.threads), _counted(folder)
    made = make_sites(data, run, here, folder, lambda done, total: None)
    sites = [site for site in made if site.name in counted]
    cohorts = [open_cohort(site, run.data, reading_of(run), admit(site, run.data, run.task).cases) for site in sites]
    note = "" if data["source"] == "folder" else "synthetic data"
    return Target(folder, _label(run), run, sites, cohorts, weights, note)


def _label(run: RunConfig) -> str:
    if run.privacy.mechanism == "none":
        return "none"
    test = "" if run.privacy.test_seed is None else ", test mode"
    return f"{run.privacy.mechanism}, epsilon {run.privacy.epsilon:g}{test}"


def _weights(folder: Path, run: RunConfig) -> bytes:
    """The exported model's bytes, tried in the run's model."""
    path = ModelFolder(SimulationFolder(folder).model).weights
    if not path.exists():
        cure = f"go on with {resume_command(folder)}"
        raise ConfigError(f"run={folder}: not finished, so there is no model to attack; {cure}")
    try:
        weights = path.read_bytes()
        load_weights(model_of(run), weights_from_bytes(weights))
    except (OSError, CodecError, RuntimeError) as error:
        raise ConfigError(f"{path}: damaged ({type(error).__name__}); put it back from a copy") from None
    return weights


def _check_data(folder: Path, data: Mapping[str, Any], names: list[str]) -> None:
    """Refuse a run whose scans are gone: written or dealt anew they might be others."""
    root = Path(str(data["root"] or SimulationFolder(folder).data))
    wanted = [root / "source.json", *(root / name for name in names)]
    if data["source"] == "folder":
        wanted = [root, SimulationFolder(folder).cohorts]
    if gone := [path for path in wanted if not path.exists()]:
        raise ConfigError(f"run={folder}: {gone[0]} is gone, and an attack needs the run's own patients; put it back")


def _counted(folder: Path) -> set[str]:
    """The sites whose updates were in the mean of some round."""
    rounds = History(SimulationFolder(folder).history).rounds()
    counted = {name for event in rounds for name, line in event["sites"].items() if line["status"] == "counted"}
    if not counted:
        raise ConfigError(f"run={folder}: history.jsonl tells of no round that counted; put it back from a copy")
    return counted
