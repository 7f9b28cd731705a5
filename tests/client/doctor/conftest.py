"""Scans of three patients, and a site that has them."""

import shutil
from pathlib import Path

import pytest

from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.phantom import PhantomConfig, write_phantoms


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_phantoms(PhantomConfig(patients=3, resolution=8.0), root, 0)
    return root


@pytest.fixture
def site(phantoms: Path, tmp_path: Path) -> SiteConfig:
    shutil.copytree(phantoms, tmp_path / "scans")
    return SiteConfig(name="a", root=str(tmp_path / "scans"), labels="brats2020", work=str(tmp_path / "work"))
