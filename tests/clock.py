"""Time that passes when somebody sleeps, and not while a busy machine does something else."""

from dataclasses import dataclass
from types import ModuleType

import pytest


@dataclass
class Clock:
    """In the place of the module `time`."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def with_clock(patch: pytest.MonkeyPatch, *modules: ModuleType) -> Clock:
    """Give modules, which have `import time`, a clock of the test's own."""
    clock = Clock()
    for module in modules:
        patch.setattr(module, "time", clock)
    return clock
