"""The model of a run: its first weights, and what is left of it at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gliofed.server.round.history import Event
from gliofed.server.round.state import State
from gliofed.shared.algorithms import ALGORITHMS, kept_of
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.config import RunConfig, as_values
from gliofed.shared.files import new_folder, write_bytes, write_json
from gliofed.shared.run_folder import ModelFolder
from gliofed.shared.seeding import seed_of
from gliofed.shared.tasks import model_of


def initial_model(config: RunConfig) -> nn.Module:
    """Build the model with the first weights, which follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "weights"))
        return model_of(config)


def export_model(
    into: Path, config: RunConfig, run_id: str, state: State, more: Mapping[str, Any] | None = None
) -> None:
    """Write a round's model for use elsewhere: weights, and what is needed to feed them; `more` is described as well.

    Where sites have tensors of their own, the description says which are missing, and by which updates a site finds
    its own.
    """
    facts: Event = {"task": config.task, "model": as_values(config.model), "data": as_values(config.data)}
    facts |= {"run_id": run_id, "round": state.round, **(more or {})}
    if HOME in kept_of(config):
        at_home = ALGORITHMS[config.algorithm.name].at_home(model_of(config))
        facts |= {"at_home": sorted(at_home), "parents": sorted(state.parents.values())}
    with new_folder(into) as folder:
        write_bytes(ModelFolder(folder).weights, state.coded_result)
        write_json(ModelFolder(folder).description, facts)
