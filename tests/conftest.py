"""Configurations small enough that a federation of four takes about a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from shared.config import RunConfig

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


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Sums in another order would differ in their last bits."""
    torch.set_num_threads(1)


def composed(*overrides: str) -> dict[str, Any]:
    """What Hydra would hand to gliofed-simulate, small unless overridden."""
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("simulation", [*SMALL, *overrides])
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values


@pytest.fixture
def values() -> Callable[..., dict[str, Any]]:
    return composed


@pytest.fixture
def run_config() -> Callable[..., RunConfig]:
    def make(*overrides: str) -> RunConfig:
        from simulation.simulate import parse_settings

        return parse_settings(composed(*overrides))[0]

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
