"""Tests with processes of their own: waiting for what they do, and whether they run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 180.0
"""Seconds for anything to happen: a SuperLink starts in four on an idle machine, and in fifty on a busy one."""
STEP = 0.1


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + patience
    while not (value := true()):
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(STEP)
    return value


def alive(pid: int) -> bool:
    """Whether it runs; one that ended may stay listed until its parent has asked for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
