"""Configurations small enough that a federation of four takes about a second."""

from copy import deepcopy
from functools import lru_cache
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

SMALL = (
    "model=unet",
    "data.size=[16,16,16]",
    "data.patch=[16,16,16]",
    "data.radius_max=6",
    "data.patients=3",
    "train.steps=2",
    "rounds=2",
    "round.deadline=60",
    "round.join=1",
)


def composed(*overrides: str) -> dict[str, Any]:
    """What Hydra would hand to gliofed-simulate, small unless overridden."""
    return as_given(*SMALL, *overrides)


def as_given(*overrides: str) -> dict[str, Any]:
    """What Hydra would hand to gliofed-simulate."""
    return deepcopy(_as_given(overrides))


@lru_cache
def _as_given(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Kept, since many tests ask for the same, and Hydra takes a tenth of a second."""
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("simulation", list(overrides))
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values
