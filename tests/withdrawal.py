"""A patient who withdraws consent, and what is looked at then."""

from pathlib import Path
from typing import Any

import pytest
from small_federation import status

from gliofed.client.cli import main
from gliofed.client.doctor.manifest import read_manifest
from gliofed.shared.config import RunConfig

WHO = "Mock-01002"
OTHERS = {"Mock-01000", "Mock-01001"}


def config() -> RunConfig:
    from small_run import composed

    from gliofed.simulation.settings import parse_settings

    return parse_settings(composed("data.validation=0"))[0]


def frozen(work: Path) -> list[Any]:
    manifest = read_manifest(work)
    assert manifest is not None
    return manifest.entries


def traces(work: Path, name: str = WHO) -> list[str]:
    """Files of the work folder that have the name in them, or in their own; P9 is another's."""
    return [
        str(path.relative_to(work))
        for path in work.rglob("*")
        if name in str(path.relative_to(work))
        or (path.is_file() and name.encode() in path.read_bytes().replace(name.encode() + b"9", b""))
    ]


def command(monkeypatch: pytest.MonkeyPatch, *words: object, yes: bool = True) -> object:
    return status(monkeypatch, main, "withdraw", *words, *["--yes"] * yes)
