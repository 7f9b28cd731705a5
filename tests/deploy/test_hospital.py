"""A hospital's end with real processes: it connects, runs approved code alone, and comes back after what ends it."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_superlink import ask, hospital, link, registered, started, tiny_app, until

from client.node import UNKNOWN_KEY
from client.status_command import status
from server.control import Control
from server.provision import provision
from shared.kit import read_kit

__all__ = ["link"]
pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def folder(link: tuple[Path, Control], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its name has what Flower's own options must have quoted."""
    return hospital(link[0], tmp_path_factory.mktemp("site") / 'o\'hara "x"')


@pytest.fixture
def said(folder: Path) -> Iterator[Path]:
    """What start says, from now on."""
    (folder / "start.log").unlink(missing_ok=True)
    return folder / "start.log"


def test_a_hospital(
    link: tuple[Path, Control], folder: Path, said: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a key that is not admitted, over approved and altered code, to a kill and the way back."""
    control = link[1]
    with started(folder) as process:
        until(lambda: UNKNOWN_KEY in said.read_text(), 60, "the sentence of an unknown key")
        registered(control, folder)
        until(lambda: "waiting for requests" in said.read_text(), 90, "connected")
        assert ask(control, tiny_app(), tmp_path / "approved.json") == [{"error": None, "said": str(folder)}]
        assert ask(control, tiny_app("altered"), tmp_path / "altered.json") == [{"error": 7, "said": None}]
        until(lambda: "refused: not approved here" in said.read_text(), 5, "the refusal")
        status(folder, as_json=True)
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["doing"] == "connected, waiting for requests" and found["refused_code"]
        # Killed, with its session still open at the server.
        os.kill(pid := supernode_of(folder), signal.SIGKILL)
        until(lambda: supernode_of(folder) != pid and state(folder)["contact"], 90, "back after a kill")
        assert ask(control, tiny_app(), tmp_path / "again.json") == [{"error": None, "said": str(folder)}]
        process.terminate()
        assert process.wait(30) == 0
    assert not alive(supernode_of(folder))


def test_a_killed_start(link: tuple[Path, Control], folder: Path, said: Path) -> None:
    """Its SuperNode goes on without it; the next start ends that one and begins its own."""
    with started(folder) as process:
        until(lambda: said.exists() and "waiting for requests" in said.read_text(), 90, "connected")
        process.kill()
        process.wait()
        orphan = supernode_of(folder)
        assert alive(orphan)
        with started(folder) as process:
            until(lambda: not alive(orphan), 60, "the end of the earlier SuperNode")
            until(lambda: supernode_of(folder) != orphan and state(folder)["contact"], 150, "connected")


def test_another_authority(link: tuple[Path, Control], folder: Path, tmp_path: Path) -> None:
    """Somebody in between has another certificate: nothing is sent to them, not even from a SuperNode that runs."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    other_study = tmp_path / "federation"
    other_study.mkdir()
    shutil.copy(link[0] / "federation.yaml", other_study / "federation.yaml")
    provision(other_study / "federation.yaml", other_study / "study")
    for name, content in read_kit(other_study / "study/kits/hospital-a.zip")[1].items():
        if name in ("kit.json", "ca.crt"):
            (other / name).write_bytes(content)
    (other / "start.log").unlink()
    with started(other) as process:
        assert process.wait(120) == 2
    assert "is not of the authority of" in (other / "start.log").read_text()


def state(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "state.json").read_text()))


def supernode_of(folder: Path) -> int:
    return int(str(state(folder)["pid"]))


def alive(pid: int) -> bool:
    """Whether it runs; one that ended may stay listed until its parent has asked for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
