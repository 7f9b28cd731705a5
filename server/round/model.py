"""The model of a run: its first weights, and what is left of it at the end."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from gliofed.server.round.given import kept_weights
from gliofed.server.round.history import Event
from gliofed.server.round.provenance import provenance_of
from gliofed.server.round.state import State
from gliofed.shared.algorithms import kept_of, sent_of
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.algorithms.groups import zeros
from gliofed.shared.codec import load_weights, travelling, weights_from_bytes
from gliofed.shared.config import RunConfig, as_values
from gliofed.shared.files import new_folder, write_bytes, write_json
from gliofed.shared.run_folder import ModelFolder, RunFolder
from gliofed.shared.sizes import at_home_of
from gliofed.shared.weights import initial_model as initial_model


def first_model(config: RunConfig, files: RunFolder) -> nn.Module:
    """Build the model that a run begins with: its weights are those that it was given, or follow from the seed.

    Raises ConfigError where the run's folder has not the weights that it was given.
    """
    model = initial_model(config)
    if config.init is not None:
        load_weights(model, weights_from_bytes(kept_weights(files, config.init)), at_home_of(config))
    return model


def first_state(config: RunConfig, files: RunFolder) -> tuple[State, list[str]]:
    """The state before round 1, and the names of the parameters that are trained, in order. Raises as `first_model`."""
    model, at_home = first_model(config, files), at_home_of(config)
    trained = {name: each for name, each in model.named_parameters() if name not in at_home}
    weights = travelling(model, at_home)
    groups = zeros(sent_of(config), trained)
    return State(round=0, weights=weights, groups=groups, codec=config.codec), sorted(trained)


def export_model(
    files: RunFolder, into: Path, config: RunConfig, run_id: str, state: State, more: Mapping[str, Any] | None = None
) -> None:
    """Write a round's model for use elsewhere: weights, what is needed to feed them, and how they came to be.

    `more` is described as well. Where sites have tensors of their own, the description says which are missing, and by
    which updates a site finds its own.
    """
    facts: Event = {"task": config.task, "model": as_values(config.model), "data": as_values(config.data)}
    numbered = tuple(f"unnamed-{number}" for number in range(1, len(config.round.expected) + 1))
    nameless = replace(config, round=replace(config.round, expected=numbered))  # a model is passed on: it names no site
    facts |= {"run_id": run_id, "round": state.round, "run": as_values(nameless), **(more or {})}
    if HOME in kept_of(config):
        facts |= {"at_home": sorted(at_home_of(config)), "parents": sorted(state.parents.values())}
    provenance = provenance_of(files, config, run_id, state)
    with new_folder(into) as folder:
        write_bytes(ModelFolder(folder).weights, state.coded_result)
        write_json(ModelFolder(folder).description, facts)
        write_json(ModelFolder(folder).provenance, provenance)
