"""A federation of which `status` and `logs` are asked, and what status shows of it."""

from pathlib import Path

from rich.console import Console

from gliofed.server.link.status import status
from gliofed.server.link.status_command import show


def line(status: str, **known: object) -> dict[str, object]:
    return {"status": status, "reason": None, "patients": None, **known}


def shown(folder: Path, width: int = 80) -> str:
    console = Console(record=True, width=width)
    show(status(folder), False, console)
    return console.export_text()
