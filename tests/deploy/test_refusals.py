"""What gliofed-client start says of keys, certificates and clocks that are not right: a sentence, and no traceback.

The server is a real one, behind a real nginx; `start` is the program that a hospital's people run.
"""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat
from deployed_federation import FAKETIME, SITES, Deployed
from waiting import PATIENCE, until

from gliofed.client.link.approve import approve
from gliofed.client.link.join import join
from gliofed.client.link.node import UNKNOWN_KEY, UNSIGNED
from gliofed.server.provisioning.admit import expel
from gliofed.server.provisioning.certificates import load_authority, write_certificate
from gliofed.shared.keys import new_key, private_bytes, write_secret
from gliofed.simulation.mock import MockConfig, write_mock

pytestmark = pytest.mark.deploy

SLEEP = "import select, time; time.sleep = lambda seconds: select.select([], [], [], seconds)"
"""libfaketime 0.9.10 fails in clock_nanosleep, where subprocess waits for a program that takes a moment to end."""


@pytest.fixture(scope="module")
def hospital(deployed: Deployed) -> Path:
    """The folder of the admitted hospital, with all that it must say."""
    return settled(deployed.hospital(SITES[0]))


@pytest.fixture
def copy(hospital: Path, tmp_path: Path) -> Path:
    """Of that folder, to be spoilt."""
    return Path(shutil.copytree(hospital, tmp_path / "copy"))


def settled(folder: Path) -> Path:
    """A hospital's folder with scans, settings and approved code."""
    write_mock(MockConfig(patients=2, size=(16, 16, 16), radius_max=6), folder / "scans", 1)
    file = folder / "site.yaml"
    text = file.read_text().replace("root: ???", "root: scans").replace("labels: ???", "labels: mock")
    file.write_text(text.replace("device: auto", "device: cpu"))
    with open(os.devnull, "w") as nowhere, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", nowhere)  # it shows all of the code
        assert approve(folder, sha256=json.loads((folder / "kit.json").read_text())["code_sha256"]) == 0
    return folder


def refused(made: Deployed, folder: Path, passing: bool = False, **environment: str) -> str:
    """What `start` says when it does not begin; status 2 keeps systemd from trying again, 1 is of what will pass."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": {**os.environ, **environment}}
    said = made.client("start", folder, **given)
    words = said.communicate(timeout=2 * PATIENCE)[0].decode()
    assert said.returncode == (1 if passing else 2), words
    assert "Traceback" not in words
    return words


def said_and_ended(started: "subprocess.Popen[bytes]", log: Path, *sentences: str) -> None:
    """Wait until `start`, which goes on trying, says one of these; it must still be there, and end when it is told."""
    until(lambda: any(each in log.read_text() for each in sentences), sentences[0])
    noted = json.loads((log.parent / "problem.json").read_text())["sentence"]  # for `status`
    assert noted in sentences
    assert started.poll() is None
    started.terminate()
    assert started.wait(60) == 0
    assert "Traceback" not in log.read_text()


@contextmanager
def expired(made: Deployed) -> Iterator[None]:
    """Let nginx have a certificate that ended yesterday, as when nobody has renewed it."""
    path, authority = made.folder / "server" / "server.crt", load_authority(made.folder)
    kept = {each: each.read_bytes() for each in (path, path.with_suffix(".key"))}
    write_certificate(path, authority, ["127.0.0.1"], 9, datetime.now(UTC) - timedelta(days=10))
    try:
        shown(made, path)
        yield
    finally:
        for each, content in kept.items():
            each.write_bytes(content)
        shown(made, path)


def shown(made: Deployed, certificate: Path) -> None:
    """Let nginx read its certificate anew, and wait until that is the one."""
    os.kill(made.pid("nginx"), signal.SIGHUP)
    until(
        lambda: ssl.get_server_certificate(("127.0.0.1", made.port)) == certificate.read_text(), "another certificate"
    )


def test_a_certificate_that_has_ended(deployed: Deployed, hospital: Path) -> None:
    with expired(deployed):
        said = refused(deployed, hospital, passing=True)
    assert "its certificate has expired, or this machine's clock is wrong; check the clock, then tell" in said


def test_without_a_key(deployed: Deployed, copy: Path) -> None:
    (copy / "site.key").unlink()
    assert f"{copy}/site.key: missing; restore it from a copy, or join again" in refused(deployed, copy)


def test_a_key_that_does_not_belong_to_what_was_sent(deployed: Deployed, copy: Path) -> None:
    write_secret(copy / "site.key", private_bytes(new_key(), PrivateFormat.OpenSSH))
    assert f"{copy}/site.key: does not belong to site.key.pub; restore it" in refused(deployed, copy)


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
@pytest.mark.parametrize(("off", "words"), [("+1h", "s ahead of the"), ("-1h", "s behind the")])
def test_a_clock_that_is_an_hour_off(deployed: Deployed, hospital: Path, tmp_path: Path, off: str, words: str) -> None:
    """Flower's signatures have the time; the certificate holds still, for it begins an hour before it was made."""
    (tmp_path / "sitecustomize.py").write_text(SLEEP)
    clock = {"LD_PRELOAD": FAKETIME, "FAKETIME": off, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    said = refused(deployed, hospital, passing=True, **clock, PYTHONPATH=str(tmp_path))
    (sentence,) = (line for line in said.splitlines() if words in line)
    assert "this machine's clock is 3" in sentence and "set it right (NTP), since signatures contain" in sentence


def test_a_key_that_is_not_the_registered_one(deployed: Deployed, tmp_path: Path) -> None:
    """The hospital joined once more, and the aggregator still has the key of before: it may be admitted any time."""
    folder = tmp_path / "again"
    join(deployed.folder / "kits" / f"{SITES[0]}.zip", folder, patients=100)
    settled(folder)
    with (folder / "start.log").open("ab") as log:
        started = deployed.client("start", folder, stdout=log, stderr=log, start_new_session=True)
    deployed.starts.append(started)
    said_and_ended(started, folder / "start.log", UNKNOWN_KEY)


def test_a_hospital_that_is_expelled_while_it_runs(deployed: Deployed, hospital: Path) -> None:
    """Whichever of its calls is refused first, the sentence says that it may have been expelled."""
    started = deployed.hospital_start(SITES[0])
    until(lambda: deployed.connected(SITES[0]), "connected")
    expel(SITES[0], deployed.folder)
    said_and_ended(started, hospital / "start.log", UNSIGNED, UNKNOWN_KEY)
