"""CITATION.cff says what the package says."""

import tomllib
from pathlib import Path

import yaml

import gliofed

HERE = Path(__file__).parents[1]


def test_citation_has_this_version_and_licence() -> None:
    """Nobody remembers the second place when a version is raised."""
    citation = yaml.safe_load((HERE / "CITATION.cff").read_text())
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    assert citation["version"] == gliofed.__version__
    assert citation["license"] == project["license"]
