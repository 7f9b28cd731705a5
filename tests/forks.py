"""Processes that are killed at a point of their work.

They are forked from a process that has imported and done nothing else, multiprocessing's fork server: to import takes
seconds, and a fork of a worker whose PyTorch has computed may crash in its first convolution.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import count
from multiprocessing import forkserver
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from quick import make_quick

IMPORTED = ["kill_and_resume", "kill_private", "gliofed.server.report.plots.style"]
"""With what they import."""
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(IMPORTED)


@dataclass(frozen=True)
class OnCall:
    """When called, patch a function so that the process is killed at a call of it."""

    owner: str
    """Where it is: a module, or a class as module:Class."""
    name: str
    number: int
    """Of the call."""
    after: bool = False
    """Whether it has done its work by then."""

    def __call__(self) -> None:
        owner = resolve_name(self.owner)
        original: Callable[..., Any] = getattr(owner, self.name)
        calls = count(1)

        def patched(*args: Any, **kwargs: Any) -> Any:
            mine = next(calls)  # of several threads, each has its own
            if mine == self.number and not self.after:
                die()
            result = original(*args, **kwargs)
            if mine == self.number:
                die()
            return result

        setattr(owner, self.name, patched)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def started(work: Callable[..., object], *given: object, killed: Callable[[], None] | None = None) -> Any:
    """A process that works, in which `killed` patches what is to kill it; all must be found by name, as pickle does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # it imports before it is told where
        forkserver.ensure_running()
    process = SERVER.Process(target=_work, args=(work, given, killed))
    process.start()
    return process


def end_of(process: Any) -> int:
    """Its exit code, or minus the signal that ended it."""
    process.join()
    code: int = process.exitcode
    process.close()
    return code


def _work(work: Callable[..., object], given: tuple[object, ...], killed: Callable[[], None] | None) -> None:
    status = 1
    try:
        make_quick(pytest.MonkeyPatch())
        if killed:
            killed()
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            work(*given)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)  # no thread of the work is waited for
