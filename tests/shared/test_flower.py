"""The version of Flower that private names were tested with, where it stands."""

import tomllib
from pathlib import Path

from flwr import __version__

from gliofed.shared.flower import TESTED, other_version

ROOT = Path(__file__).parents[2]


def test_what_is_installed_what_is_required_and_what_was_tested_are_one_version() -> None:
    """Else a fresh installation would refuse to start."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [each for each in project["dependencies"] if each.startswith("flwr")]
    assert required == [f"flwr=={TESTED}"]
    assert project["optional-dependencies"]["ray"] == ["flwr[simulation]"]  # of that version
    assert f"flwr=={TESTED}" in (ROOT / "requirements.lock").read_text().splitlines()
    assert __version__ == TESTED and other_version("it works") is None
