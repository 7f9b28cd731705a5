"""A process that is forked, and killed at a point of its work; importing again would take seconds."""

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import count
from typing import Any

Original = Callable[..., Any]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(owner: Any, name: str, number: int, *, after: bool) -> Callable[[], None]:
    """Make a function that patches `owner.name` to kill the process at its call `number`."""

    def patch() -> None:
        original: Original = getattr(owner, name)
        calls = count(1)

        def patched(*args: Any, **kwargs: Any) -> Any:
            mine = next(calls)  # of several threads, each has its own
            if mine == number and not after:
                die()
            result = original(*args, **kwargs)
            if mine == number:
                die()
            return result

        setattr(owner, name, patched)

    return patch


def in_fork(work: Callable[[], object]) -> int:
    """Start `work` in a child; return its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def end_of(pid: int) -> int:
    """Exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
