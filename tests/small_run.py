"""Configurations small enough that a federation of four takes about a second."""

from copy import deepcopy
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

import gliofed.configs

CONFIGS = Path(gliofed.configs.__file__).parent

SMALL_DATA = (
    "data.size=[8,8,8]",
    "data.patch=[8,8,8]",
    "data.radius_min=1",
    "data.radius_max=2",
    "data.patients=3",
)
PLAIN = ("codec=fp32", "optimizer=adamw", "optimizer.moments=fresh")
"""FedAvg of the paper, nothing coded, with PyTorch's AdamW: with it most tests compare, value by value."""
USUAL = ("codec=mixed", "optimizer=muon", "optimizer.moments=null")
"""As a run has them where nothing is said."""
_FEW = ("train.steps=2", "rounds=2", "round.deadline=600", "round.join=1", *PLAIN)
SMALL = ("model=unet", *SMALL_DATA, *_FEW)
SMALL_GRADING_DATA = ("data=phantom", "data.patients=2", "data.resolution=8.0", "data.patch=[8,8,8]")
SMALL_GRADING = ("model=cnn_lstm", *SMALL_GRADING_DATA, *_FEW)


def composed(*overrides: str) -> dict[str, Any]:
    """What Hydra would hand to gliofed-simulate, small unless overridden."""
    return as_given(*SMALL, *overrides)


def as_given(*overrides: str) -> dict[str, Any]:
    """What Hydra would hand to gliofed-simulate."""
    return deepcopy(_as_given(overrides))


@lru_cache
def _as_given(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Kept, since many tests ask for the same.

    Hydra takes a fifth of a second to compose the choices of groups; single settings go in afterwards, as it does it.
    """
    parsed = [_parsed(word) for word in overrides]
    single = [word.type == OverrideType.CHANGE and not (CONFIGS / word.key_or_group).is_dir() for word in parsed]
    config = deepcopy(_chosen(tuple(word for word, one in zip(overrides, single, strict=True) if not one)))
    for word in compress(parsed, single):
        OmegaConf.update(config, word.key_or_group, word.value(), merge=True)
    values: Any = OmegaConf.to_container(config, resolve=True)
    return values


@lru_cache
def _parsed(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


@lru_cache
def _chosen(words: tuple[str, ...]) -> DictConfig:
    with initialize_config_module("gliofed.configs", version_base="1.3"):
        return compose("simulation", list(words))
