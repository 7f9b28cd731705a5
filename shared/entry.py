"""Where each command begins: from here on Ctrl-C is status 130 and a sentence, also while the command is imported."""

import os
import signal
import sys
from functools import partial
from importlib import import_module
from types import FrameType


def leave(*_: int | FrameType | None) -> None:
    """Leave at once, before the command has anything to clean up."""
    try:
        os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode())
    finally:
        os._exit(130)


def _begin(package: str) -> None:
    """Import a package's command by its name, since shared imports nothing of the other packages, and run it.

    `gliofed.shared.terminal.enter` hears Ctrl-C from then on.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, in the background
        signal.signal(signal.SIGINT, leave)
    import_module(f"gliofed.{package}.cli").main()


client, server, simulate = (partial(_begin, package) for package in ("client", "server", "simulation"))
"""What gliofed-client, gliofed-server and gliofed-simulate call."""
