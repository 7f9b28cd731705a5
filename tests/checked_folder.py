"""gliofed-client check, as a hospital types it."""

import pytest
from small_federation import status

from gliofed.client.cli import main


def check(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit status; in this process, whose imports are done."""
    return status(monkeypatch, main, "check", "workers=1", *words)
