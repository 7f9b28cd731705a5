"""A federation's folder and its hospital's, and a run whose two ends sign what they send."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from both_ends import Both, both_ends
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from small_federation import provisioned
from telephone import admit_told

from gliofed.client.link.join import join
from gliofed.client.round.audit import SiteKeys
from gliofed.server.provisioning.certificates import load_authority
from gliofed.server.round.run_keys import open_keys
from gliofed.shared.config import RunConfig
from gliofed.shared.signatures import Trust, read_trust


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation's folder study, and that of its hospital a, which was admitted; and another federation's."""
    root = tmp_path_factory.mktemp("federation")
    for name in ("root", "other"):
        provisioned(root / name, "name: study\naddress: localhost:8443\nsites: [a, z]\n")
    join(root / "root/study/kits/a.zip", root / "root/a", patients=100)
    admit_told(root / "root/a/a.request.json", root / "root/study")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy")) / "root"


@pytest.fixture
def both(root: Path, run_config: Callable[..., RunConfig]) -> Iterator[Both]:
    """A run in the federation's folder, whose site has prepared."""
    (root / "study/runs").mkdir()
    with both_ends(root / "study/runs/one", run_config(), open_keys(root / "study"), site_keys(root / "a")) as made:
        yield made


def site_keys(folder: Path) -> SiteKeys:
    key: Any = load_ssh_private_key((folder / "site.key").read_bytes(), None)
    authority = load_authority(folder.parent / "study")
    return SiteKeys(key, authority.certificate)


def trust(root: Path) -> Trust:
    """What a hospital has from its kit, and from its own folder."""
    return read_trust([root / "study/kits/a.zip", root / "a/site.key.pub"])


def run(root: Path) -> Path:
    return root / "study/runs/one"
