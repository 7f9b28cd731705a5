"""A federation of two hospitals before its first start, one with runs, and one of which the status is asked."""

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_federation import provisioned
from telephone import admit_told

import gliofed.server.link.superlink
from gliofed.client.link.join import join
from gliofed.server.link.runs import Run, new_run
from gliofed.server.link.start import only_one
from gliofed.server.provisioning.admit import expel
from gliofed.shared.config import RunConfig

SITES = ("hospital-a", "hospital-b")
HERE = "name: study\naddress: localhost:8443\nlisten: 127.0.0.1:{port}\nsites: [hospital-a, hospital-b]\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation with both hospitals' requests."""
    root = tmp_path_factory.mktemp("federation")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        folder = provisioned(root, HERE.format(port=probe.getsockname()[1]))
    for site in SITES:
        join(folder / "kits" / f"{site}.zip", root / site, patients=100)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "root"))


@pytest.fixture
def folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(gliofed.server.link.superlink, "_nginx", lambda: "nginx")
    yield root / "study"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A federation of whom only runs are asked."""
    (tmp_path / "code.fab").write_bytes(b"code")
    return tmp_path


@pytest.fixture
def make(study: Path, run_config: Callable[..., RunConfig]) -> Callable[[str], Run]:
    return lambda name: new_run(study, name, run_config(), ["rounds=2"], b"code")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation with both hospitals admitted, one of them expelled since."""
    root = tmp_path_factory.mktemp("federation")
    folder = provisioned(root)
    for site in ("hospital-a", "hospital-b"):
        join(folder / "kits" / f"{site}.zip", root / site, patients=100)
        admit_told(root / site / f"{site}.request.json", folder)
    expel("hospital-b", folder)
    return folder


@pytest.fixture
def watched(known: Path, tmp_path: Path) -> Iterator[Path]:
    """As if `start` ran, where a test writes what that knows."""
    place = Path(shutil.copytree(known, tmp_path / "study"))
    with only_one(place):
        yield place


@pytest.fixture
def run(watched: Path, run_config: Callable[..., RunConfig]) -> Run:
    return new_run(watched, "one", run_config(), [], b"code")
