"""Scans of a few patients, which stay as they are, and a site that has a copy."""

import shutil
from pathlib import Path

import pytest

from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.phantom import PhantomConfig, write_phantoms


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_phantoms(PhantomConfig(patients=3, resolution=8.0), root, 0)
    return root


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_phantoms(PhantomConfig(patients=2, resolution=8.0), root, 0)
    return root


@pytest.fixture
def site(phantoms: Path, tmp_path: Path) -> SiteConfig:
    shutil.copytree(phantoms, tmp_path / "scans")
    return SiteConfig(name="a", root=str(tmp_path / "scans"), labels="brats2020", work=str(tmp_path / "work"))
