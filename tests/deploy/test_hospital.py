"""A hospital's end with real processes: it connects, runs approved code alone, and comes back after what ends it."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from real_superlink import answer_in, ask, hospital, link, registered, started, tiny_app
from waiting import alive, until

from gliofed.client.link.clientapp import REASON
from gliofed.client.link.node import UNKNOWN_KEY
from gliofed.client.link.status_command import status
from gliofed.server.link.control import Control
from gliofed.server.provisioning.provision import provision
from gliofed.shared.kit import read_kit

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
        until(lambda: UNKNOWN_KEY in said.read_text(), "the sentence of an unknown key")
        registered(control, folder)
        until(lambda: "waiting for requests" in said.read_text(), "connected")
        assert ask(control, tiny_app(), tmp_path / "approved.json") == answered(folder)
        assert ask(control, tiny_app("altered"), tmp_path / "altered.json")[0]["error"] == 7
        until(lambda: "refused: not approved here" in said.read_text(), "the refusal")
        status(folder, as_json=True)
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["doing"] == "connected, waiting for requests" and found["refused_code"]
        # Killed, with its session still open at the server.
        os.kill(pid := supernode_of(folder), signal.SIGKILL)
        until(lambda: supernode_of(folder) != pid and state(folder)["contact"], "back after a kill")
        assert ask(control, tiny_app(), tmp_path / "again.json") == answered(folder)
        process.terminate()
        assert process.wait(30) == 0
    assert not alive(supernode_of(folder))


def test_requests_that_go_wrong(link: tuple[Path, Control], folder: Path, said: Path, tmp_path: Path) -> None:
    """What an exception says stays here; a program that is killed is missed at once; what lies about is not run."""
    control, do = link[1], folder / "do"
    with started(folder):
        until(lambda: said.exists() and "waiting for requests" in said.read_text(), "connected")
        do.write_text("raise ValueError('Erika Mustermann')")
        (found,) = ask(control, tiny_app(), tmp_path / "raised.json")
        assert (found["error"], found["reason"]) == (2, REASON)
        assert '"event": "error_sent"' in (folder / "work/audit/audit.jsonl").read_text().splitlines()[-1]
        do.unlink()
        (installed,) = (folder / "flower/apps").glob("*/gliofed/tiny.py")
        installed.write_text("raise ValueError('other code')")
        assert ask(control, tiny_app(), tmp_path / "installed.json") == answered(folder)
        for kind in (signal.SIGTERM, signal.SIGKILL):
            do.write_text("time.sleep(100)")
            control.start_run(tiny_app(), {"out": str(tmp_path / f"{kind}.json")})
            until(lambda: clientapp_of(folder), "its process")
            until(lambda: state(folder)["state"] == "working", "working")
            pid, words = clientapp_of(folder)
            nobody_else_is_let_in(words[-3], folder)
            os.kill(pid, kind)
            assert answer_in(tmp_path / f"{kind}.json")[0]["error"] == 8
        do.unlink()
        assert ask(control, tiny_app(), tmp_path / "after.json") == answered(folder)


def nobody_else_is_let_in(address: str, folder: Path) -> None:
    """Another user of the machine can call the port, and see the command; the secret alone makes the difference."""
    home = folder / "flower"
    for secret, expected in ((None, 401), (b"guessed", 401), ((home / "runtime.secret").read_bytes(), 200)):
        method = {"/flwr.proto.Runtime/AcquireTask"}
        ours = [SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=method)] if secret else []
        caller = RuntimeHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=(home / "runtime.crt").read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), *ours],
        )
        try:
            caller.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-agentapp"]))
            found = 200
        except httpx.HTTPStatusError as error:
            found = error.response.status_code
        finally:
            caller.close()
        assert found == expected


def test_a_killed_start(link: tuple[Path, Control], folder: Path, said: Path) -> None:
    """Its SuperNode goes on without it; the next start ends that one and begins its own."""
    with started(folder) as process:
        until(lambda: said.exists() and "waiting for requests" in said.read_text(), "connected")
        process.kill()
        process.wait()
        orphan = supernode_of(folder)
        assert alive(orphan)
        with started(folder) as process:
            until(lambda: not alive(orphan), "the end of the earlier SuperNode")
            until(lambda: supernode_of(folder) != orphan and state(folder)["contact"], "connected")


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
    assert "is not from the authority in" in (other / "start.log").read_text()


def answered(folder: Path) -> list[dict[str, object]]:
    """What a hospital answers where all is well."""
    return [{"error": None, "reason": None, "said": str(folder)}]


def clientapp_of(folder: Path) -> tuple[int, list[str]] | None:
    """The process of a request, and the words of its command, as every user of the machine sees them."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")[:-1]
            if entry.name.isdigit() and str(folder / "flower/runtime.crt") in words:
                return int(entry.name), words
    return None


def state(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "state.json").read_text()))


def supernode_of(folder: Path) -> int:
    return int(str(state(folder)["pid"]))
