"""Where each command begins: from here on Ctrl-C is status 130 and a sentence, also while the command is imported."""

import os
import signal
import sys
from importlib import import_module
from types import FrameType


def client() -> None:
    """Begin gliofed-client."""
    _begin("gliofed.client.cli")


def server() -> None:
    """Begin gliofed-server."""
    _begin("gliofed.server.cli")


def simulate() -> None:
    """Begin gliofed-simulate."""
    _begin("gliofed.simulation.cli")


def leave(*_: int | FrameType | None) -> None:
    """Leave at once, before the command has anything to clean up."""
    try:
        os.write(2, f"{os.path.basename(sys.argv[0])}: interrupted\n".encode())
    finally:
        os._exit(130)


def _begin(module: str) -> None:
    """Import the command by its name, since shared imports nothing of the other packages, and run it.

    `gliofed.shared.terminal.enter` hears Ctrl-C from then on.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, in the background
        signal.signal(signal.SIGINT, leave)
    import_module(module).main()
