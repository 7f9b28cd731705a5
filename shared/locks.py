"""Locks on files, between processes and between threads; a process that is killed gives its own back."""

import fcntl
import time
from pathlib import Path
from typing import IO

from gliofed.shared.parse import ConfigError

POLL = 0.01
"""Seconds between two tries of a lock."""


class BusyError(ConfigError):
    """Another process or thread holds the lock."""


def lock_file(file: Path, busy: str, *, shared: bool = False, wait: float | None = 0.0) -> IO[str]:
    """Take the lock of a file, which is made where there is none; closing what is returned gives it back.

    A shared lock keeps out only one that is not. Raises BusyError with the sentence `busy` where somebody else has it
    for longer than `wait` seconds; None: waits until it is free.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait is None else fcntl.LOCK_NB)
    held, end = file.open("a+"), time.monotonic() + (wait or 0.0)
    while True:
        try:
            fcntl.flock(held, kind)
            return held
        except BlockingIOError:
            if time.monotonic() >= end:
                held.close()
                raise BusyError(busy) from None
        time.sleep(POLL)


def is_locked(file: Path) -> bool:
    """Whether somebody holds the lock of a file, alone. To ask takes it for a moment: who wants it waits a little."""
    try:
        with file.open() as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
