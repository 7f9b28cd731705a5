"""What most tests need: one thread, and small configurations."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import composed

from gliofed.shared.config import RunConfig


def pytest_collection_finish() -> None:
    """What was imported stays: the collector of garbage need not look through its half a million objects again."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Sums in another order would differ in their last bits."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def no_power_cut() -> Iterator[None]:
    """A test may kill a process, but the system still has what was written: waiting for a disk proves nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def values() -> Callable[..., dict[str, Any]]:
    return composed


@pytest.fixture
def run_config() -> Callable[..., RunConfig]:
    def make(*overrides: str) -> RunConfig:
        from gliofed.simulation.settings import parse_settings

        return parse_settings(composed(*overrides))[0]

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
