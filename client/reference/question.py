"""What a hospital compares: checked before any scan is read, and without PyTorch, so that the answer is quick."""

from dataclasses import dataclass, replace
from pathlib import Path

from gliofed.client.round.memory import known_patch
from gliofed.shared.config import RunConfig
from gliofed.shared.exported import Exported
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import SiteConfig


@dataclass(frozen=True)
class Question:
    """What is compared."""

    site: SiteConfig
    """Whose `device` both models are trained or measured on."""
    model: Path
    """Folder of the federated model."""
    exported: Exported
    run: RunConfig
    """Of the federation that made it; `data.patch` is the smaller one where the site came down to that."""
    rounds: int
    """That the reference takes."""


def question(site: SiteConfig, model: Path, exported: Exported, rounds: int | None, device: str | None) -> Question:
    """Check what is asked; `rounds` and `device` are those of the model and of the site where they are None.

    Raises ConfigError.
    """
    run = exported.run
    if run is None:
        cure = "ask the aggregator for the model folder of a run of this version"
        raise ConfigError(f"{model}: its model.json lacks the run's settings, which a reference needs; {cure}")
    if run.data.test is None:
        cure = "ask the aggregator for a run with data.test=0.2, say"
        raise ConfigError(f"{model}: its run set no test patients aside, so no model can be compared; {cure}")
    given = f"{model}: is of round {exported.round}" if rounds is None else f"--rounds {rounds}"
    rounds = exported.round if rounds is None else rounds
    if not 1 <= rounds <= run.rounds:  # the best round is 0 where the run only spoiled the weights that it was given
        raise ConfigError(f"{given}; give --rounds from 1 to {run.rounds}, the rounds of the run")
    if not site.folder.manifest.exists():
        cure = "compare after it took part in a run, or freeze its cohort with gliofed-client check"
        raise ConfigError(f"{site.work}: this hospital has no frozen cohort yet; {cure}")
    site = replace(site, device=device or site.device)
    if smaller := known_patch(site, exported.run_id):
        run = replace(run, data=replace(run.data, patch=smaller))
    return Question(site, model, exported, run, rounds)
