"""A real SuperLink with TLS and node keys on loopback, a hospital beside it, and a tiny app that runs on both.

At the hospital it does what the file `do` in the hospital's folder says.
"""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from small_federation import provisioned
from waiting import until

from gliofed.client.link.approve import approve
from gliofed.client.link.join import join
from gliofed.server.link.control import Control
from gliofed.shared.keys import read_public
from gliofed.simulation.mock import MockConfig, write_mock

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
PYPROJECT = """[project]
name = "tiny"
version = "1.0.0"

[tool.flwr.app]
publisher = "test"

[tool.flwr.app.components]
serverapp = "gliofed.tiny:server"
clientapp = "gliofed.tiny:client"

[tool.flwr.app.config]
out = ""
"""
APP = """
import json, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client, server = ClientApp(), ServerApp()

@client.query()
def query(message, context):
    do = Path(context.node_config["folder"], "do")
    exec(do.read_text() if do.exists() else "")
    return Message(RecordDict({"said": ConfigRecord({"folder": context.node_config["folder"]})}), reply_to=message)

@server.main()
def main(grid, context):
    end = time.monotonic() + 100
    while not (nodes := list(grid.get_node_ids())) and time.monotonic() < end:
        time.sleep(0.5)
    messages = [Message(RecordDict(), node, "query", group_id="1") for node in nodes]
    found = [
        {"error": reply.error.code if reply.has_error() else None,
         "reason": reply.error.reason if reply.has_error() else None,
         "said": None if reply.has_error() else reply.content["said"]["folder"]}
        for reply in grid.send_and_receive(messages, timeout=100)
    ]
    with open(context.run_config["out"], "w") as file:
        json.dump(found, file)
"""


def tiny_app(words: str = "") -> bytes:
    """The app as a bundle, whose gliofed is not the one that is installed; `words` make it another one."""
    from flwr.cli.build import build_fab_from_files

    files = {
        "pyproject.toml": PYPROJECT.encode(),
        "gliofed/tiny.py": (APP + f"# {words}\n").encode(),
        "gliofed/__init__.py": b"",
    }
    return build_fab_from_files(files)[0]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def program(words: list[str], log: Path, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program in a group of its own, which is ended with all that it started."""
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    own = {**os.environ, "PATH": path, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", **environment}
    with log.open("ab") as file:
        process = subprocess.Popen(
            words, env=own, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)


@contextmanager
def superlink(folder: Path) -> Iterator[tuple[Path, Control]]:
    """A provisioned federation in `folder`, whose address is the SuperLink's own, and its Control API."""
    port = free_port()
    study = provisioned(folder, f"name: study\naddress: localhost:{port}\nnames: [127.0.0.1]\nsites: [hospital-a]\n")
    words = [str(PROGRAMS / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port)]
    words += ["--ssl-ca-certfile", str(study / "ca/ca.crt"), "--ssl-certfile", str(study / "server/server.crt")]
    words += ["--ssl-keyfile", str(study / "server/server.key"), "--enable-supernode-auth"]
    words += ["--disable-runtime-dependency-installation", "--database", str(folder / "state.db")]
    with program(words, folder / "superlink.log", FLWR_HOME=str(folder / "flower")):
        until(lambda: answers(port), "the SuperLink's port")
        yield study, Control(f"localhost:{port}", study / "ca/ca.crt")


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def hospital(study: Path, folder: Path) -> Path:
    """A hospital that joined, with scans, and with the tiny app as its approved code."""
    join(study / "kits/hospital-a.zip", folder, patients=100)
    write_mock(MockConfig(patients=2, size=(16, 16, 16), radius_max=6), folder / "scans", 1)
    text = (folder / "site.yaml").read_text().replace("root: ???", "root: scans").replace("labels: ???", "labels: mock")
    (folder / "site.yaml").write_text(text.replace("device: auto", "device: cpu"))
    (folder / "tiny.fab").write_bytes(tiny_app())
    with redirect_stdout(io.StringIO()):  # it shows all of the code
        assert approve(folder, folder / "tiny.fab", hashlib.sha256(tiny_app()).hexdigest()) == 0
    return folder


def registered(control: Control, folder: Path) -> int:
    """Let the hospital's key in; return the node's id."""
    key = read_public((folder / "site.key.pub").read_text(), "site.key.pub")
    return control.register(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "hospital-a")


@contextmanager
def started(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """gliofed-client start, of this very code."""
    words = [sys.executable, "-c", "from gliofed.client.cli import main; main()", "start", str(folder)]
    with program(words, folder / "start.log", PYTHONPATH=str(ROOT)) as process:
        yield process


def ask(control: Control, code: bytes, out: Path) -> list[dict[str, object]]:
    """Run the app; return what each node answered."""
    control.start_run(code, {"out": str(out)})
    return answer_in(out)


def answer_in(out: Path) -> list[dict[str, object]]:
    """Wait for what each node answered."""
    until(out.exists, "an answer")
    until(lambda: out.read_text(), "the whole answer")
    found: list[dict[str, object]] = json.loads(out.read_text())
    return found


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Control]]:
    with superlink(tmp_path_factory.mktemp("made")) as made:
        yield made
