"""gliofed-client start: what ends it, what does not, and that nothing is left of it in the end."""

import fcntl
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from small_federation import status
from waiting import alive, until

import gliofed.client.link.start
from gliofed.client.cli import main
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.node import Node
from gliofed.client.link.reach import Findings
from gliofed.client.link.start import running, start, supernode
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.kit import Kit
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import print_with_time

ROOT = Path(__file__).parents[3]
KIT = Kit(federation="study", site="a", address="127.0.0.1:1", ca_sha256="a" * 64, code_sha256="b" * 64, made="now")


def test_a_full_disk_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([OSError(28, "No space left on device", "state.json")] * 3 + [KeyboardInterrupt()])
    monkeypatch.setattr(gliofed.client.link.start, "STEP", 0.0)
    monkeypatch.setattr(Node, "supervise", lambda self: (_ for _ in ()).throw(next(looks)))
    with pytest.raises(KeyboardInterrupt):
        gliofed.client.link.start._keep(Node(tmp_path, KIT, supernode(tmp_path)), threading.Event())
    assert capsys.readouterr().out.count("state.json: No space left on device; make room") == 1
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        print_with_time("anything")
        monkeypatch.undo()
        with suppress(OSError):  # what it could not write
            full.close()


def test_where_its_programs_write(tmp_path: Path) -> None:
    """Flower unpacks code in a temporary folder, and /tmp may be full, or not to be written in a service."""
    assert supernode(tmp_path).environment["TMPDIR"] == str(tmp_path / "flower/tmp")


@pytest.fixture
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kit.json").write_text("{}")
    monkeypatch.setattr(
        gliofed.client.link.start, "preflight", lambda folder: Findings(["site.key: a fault\x1b[2K"], ["a warning"])
    )
    return tmp_path


def test_faults_end_it(joined: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file says is not let loose on a terminal."""
    assert status(monkeypatch, main, "start", joined) == 2
    said = capsys.readouterr()
    assert "warning: a warning" in said.out and said.err == "gliofed-client: site.key: a fault\\x1b[2K\n"
    monkeypatch.chdir(joined)
    assert status(monkeypatch, main, "start") == 2
    assert status(monkeypatch, main, "start", joined / "nowhere") == 2
    assert "nowhere: no hospital's folder" in capsys.readouterr().err


def test_what_will_pass_is_tried_again(joined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service starts it again after status 1, and leaves it after 2: nobody comes when the aggregator has renewed."""
    monkeypatch.setattr(gliofed.client.link.start, "preflight", lambda folder: Findings(passing=["a clock"]))
    assert status(monkeypatch, main, "start", joined) == 1


def test_status_holds_a_folder_for_a_moment_only(tmp_path: Path) -> None:
    """It takes the same lock to see who runs; a start of that moment would end for good, as a service."""
    with HospitalFolder(tmp_path).lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        over = threading.Timer(0.15, fcntl.flock, (held, fcntl.LOCK_UN))
        over.start()
        with gliofed.client.link.start._alone(tmp_path):
            over.join()
            assert running(tmp_path) == os.getpid()


HOSPITAL = """
import sys
from pathlib import Path
from types import SimpleNamespace
import gliofed.client.link.node
import gliofed.client.link.start as command
from gliofed.client.link.reach import Findings
from gliofed.shared.processes import Program
folder = Path(sys.argv[1])
command.preflight = lambda folder: Findings()
command.read_own_kit = lambda folder: SimpleNamespace(site="a", federation="study", address="here:1")
gliofed.client.link.node.read_site = lambda folder: SimpleNamespace(policy=SimpleNamespace(max_minutes=1))
command.STEP = 0.05
child = "sleep 61 & echo $! > child; sleep 61"
command.supernode = lambda folder: Program("supernode", ["sh", "-c", child], folder / "flower", {})
sys.exit(command.start(folder))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: signal.Signals) -> None:
    """One start at a time; after a signal nothing is left that it started, and not after a kill and another start."""
    (tmp_path / "kit.json").write_text("{}")
    own = {**os.environ, "PYTHONPATH": str(ROOT)}

    def begun() -> "tuple[subprocess.Popen[bytes], int]":
        (tmp_path / "child").unlink(missing_ok=True)
        command = [sys.executable, "-c", HOSPITAL, str(tmp_path)]
        process = subprocess.Popen(command, env=own, cwd=tmp_path, stdout=subprocess.DEVNULL)
        pid = until(lambda: _noted(tmp_path) or process.poll() is not None, "the program that it starts")
        assert process.poll() is None
        return process, pid

    first, child = begun()
    try:
        assert running(tmp_path) == first.pid
        with pytest.raises(ConfigError, match=f"started already, by process {first.pid}"):
            start(tmp_path)
        first.kill()
        first.wait()
        assert alive(child) and running(tmp_path) is None
    finally:
        first.kill()
    second, other = begun()
    try:
        assert not alive(child) and alive(other)
        second.send_signal(kind)
        assert second.wait(30) == 0
        assert not alive(other) and running(tmp_path) is None
    finally:
        second.kill()
    acts = read_audit(audit_file(tmp_path / "work")).events()
    user = pwd.getpwuid(os.getuid()).pw_name
    assert [(act["event"], act["user"]) for act in acts] == [("started", user), ("started", user), ("ended", user)]


def _noted(folder: Path) -> int | None:
    """What the program has started, once the note of the program itself is on disk too."""
    try:
        pid = int((folder / "child").read_text())
        leader = json.loads((folder / "flower/supernode.process.json").read_text())["pid"]
        return pid if os.getpgid(pid) == leader else None
    except (OSError, ValueError):
        return None
