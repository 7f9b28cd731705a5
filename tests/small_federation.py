"""A federation of two hospitals in a temporary folder, as provision makes it."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gliofed.server.provisioning.provision import provision
from gliofed.shared.archive import read_zip, write_zip

TEXT = "name: study\naddress: localhost:8443\nnames: [fl.example.org, 10.1.2.3]\nsites: [hospital-a, hospital-b]\n"
NOW = datetime.now(UTC)


def provisioned(folder: Path, text: str = TEXT) -> Path:
    """The federation's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "federation.yaml").write_text(text)
    provision(folder / "federation.yaml", folder / "study")
    return folder / "study"


def again(folder: Path, text: str = TEXT, now: datetime = NOW) -> list[str]:
    """Provision a folder another time; what that says."""
    (folder.parent / "new.yaml").write_text(text)
    return provision(folder.parent / "new.yaml", folder, now)


def altered(kit: Path, to: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """A copy of a kit, with its files changed."""
    files = read_zip(kit.read_bytes(), "kit", 2**24)
    change(files)
    to.write_bytes(write_zip(files))
    return to


def rewrite(path: Path, **values: Any) -> Path:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path


def status(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *words: object) -> object:
    """The exit status of a command."""
    monkeypatch.setattr(sys, "argv", ["gliofed", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code
