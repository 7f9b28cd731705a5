"""What several tests of the site share."""

from pathlib import Path

import pytest
from private_hospital import PATIENTS, Hospital

from gliofed.simulation.mock import MockConfig, write_mock


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_mock(MockConfig(patients=PATIENTS, size=(16, 16, 16), radius_max=6), root, 1)
    return root


@pytest.fixture
def hospital(scans: Path, tmp_path: Path) -> Hospital:
    return Hospital(scans, tmp_path)
