"""What most tests need: one thread, and small configurations.

What takes long to import is imported where it is used: xdist reads this file once more than it has workers.
"""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gliofed.shared.config import RunConfig

# Before NumPy and PyTorch are loaded, also for the processes that a test starts: each worker has one core, and sums in
# another order would differ in their last bits.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """A GPU is there for -m gpu alone: else results are a CPU's, bit for bit, and tests fork, which CUDA forbids."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # Ignored in all that a script starts with &, so in all that tests start: who interrupts would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole simulations first, whose files take longest: else one worker has such a file when the other is done."""
    items.sort(key=lambda item: "simulation" not in item.path.parts)


def pytest_collection_finish() -> None:
    """What was imported stays: the collector of garbage need not look through its half a million objects again."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def quick() -> Iterator[None]:
    from quick import make_quick

    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        yield


@pytest.fixture
def values() -> Callable[..., dict[str, Any]]:
    from small_run import composed

    return composed


@pytest.fixture
def run_config() -> Callable[..., "RunConfig"]:
    def make(*overrides: str) -> "RunConfig":
        from small_run import composed

        from gliofed.simulation.settings import parse_settings

        return parse_settings(composed(*overrides))[0]

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
