"""Flower's SuperNode, which here runs approved code only, and notes in state.json what it does.

Flower can ask for code that is signed, by entities that a central service knows; a hospital approves a hash. So
private names of it are replaced, all in this file, which refuses to run with another Flower. tests/deploy try it.

What runs a request talks to the SuperNode over a port of loopback, which every user of the machine reaches: so it asks
for a secret, over TLS, for the port is anybody's once the SuperNode has ended.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flwr.supernode.start_client_internal as internal
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from flwr.app import Message
from flwr.common.config import get_fab_config, get_metadata_from_config
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.approve import approved
from gliofed.client.link.execute import Executor
from gliofed.client.link.life import Life, complain
from gliofed.client.link.site_file import read_site
from gliofed.client.round.audit import note
from gliofed.shared.files import write_bytes
from gliofed.shared.flower import other_version
from gliofed.shared.keys import new_key, own_certificate, private_bytes, write_secret
from gliofed.shared.kit import parse_kit
from gliofed.shared.parse import ConfigError

HOST = "127.0.0.1"
KINDS = ("query", "train", "evaluate")


def run_supernode(folder: Path) -> None:
    """Run a SuperNode for the hospital's folder until it ends; its process ends with it."""
    if reason := other_version("approval of code is known to hold"):
        sys.exit(reason)
    folder = folder.resolve()
    os.umask(0o077)
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    home = HospitalFolder(folder).flower
    shutil.rmtree(HospitalFolder(folder).temporary, ignore_errors=True)  # what killed processes left
    HospitalFolder(folder).temporary.mkdir(parents=True, exist_ok=True)
    _write_secrets(home)
    program = str(Path(__file__).with_name("clientapp.py"))  # by its path, so that no package of ours is imported
    arguments = (f"{HOST}:{port}", str(home / "runtime.crt"), str(os.getpid()))
    replace_names(folder, Life(folder), (sys.executable, "-P", program, *arguments))
    sys.argv = ["flower-supernode", *flower_options(folder, port)]
    flower_supernode()
    # Flower logs a failed call, ends its loop and leaves the process: offline for ever, with its port.
    os._exit(1)


def flower_options(folder: Path, port: int) -> list[str]:
    """Flower's own options; its Runtime API listens on this port."""
    kit = parse_kit((path := HospitalFolder(folder).kit).read_bytes(), str(path))
    # A quote as TOML's escape, for Flower looks for the closing one before it reads TOML.
    quoted = '"' + json.dumps(str(folder), ensure_ascii=False)[1:-1].replace('\\"', "\\u0022") + '"'
    home = HospitalFolder(folder).flower
    return [
        *("--superlink", kit.address),
        *("--root-certificates", str(HospitalFolder(folder).authority)),
        *("--auth-supernode-private-key", str(HospitalFolder(folder).key)),
        *("--host", HOST, "--port", str(port)),
        *("--ssl-certfile", str(home / "runtime.crt"), "--ssl-keyfile", str(home / "runtime.key")),
        *("--ssl-ca-certfile", str(home / "runtime.crt")),
        *("--isolation", "process", "--superexec-auth-secret-file", str(home / "runtime.secret")),
        *("--node-config", f"folder={quoted}"),
    ]


def _write_secrets(home: Path) -> None:
    """For this process alone: nobody has the last one's."""
    key = new_key()
    write_secret(home / "runtime.key", private_bytes(key, PrivateFormat.PKCS8))
    write_bytes(home / "runtime.crt", own_certificate(key, HOST).public_bytes(Encoding.PEM))
    write_secret(home / "runtime.secret", secrets.token_bytes(32))  # nobody asks with it; without one, anybody could


def replace_names(folder: Path, life: Life, command: Sequence[str]) -> None:
    """Put our check of the code, our processes, and our notes around Flower's own."""
    asked: list[Message] = []

    def allowed(code: bytes) -> bool:
        if is_approved(folder, code):
            return True
        life.refused(hashlib.sha256(code).hexdigest())
        return False

    def heard(message: Message | None) -> None:
        if message is None:
            life.say("idle")
        else:
            asked[:] = [message]
            life.say("working", *about(message))

    executor = Executor(command, allowed, HospitalFolder(folder).apps)
    push_messages = internal._push_messages

    def push(**given: Any) -> None:
        def send(message: Message, *rest: Any) -> Any:
            if message.has_error():
                kind, round = about(message)
                kind = "prepare" if kind == "query" else kind  # as the log has a request's
                _note(folder, {"event": "error_sent", "code": message.error.code, "kind": kind, "round": round})
            return given["send"](message, *rest)

        executor.answer(asked[0], given["state"], given["object_store"])
        push_messages(**{**given, "send": send})

    internal._pull_and_store_message = _pulling(internal._pull_and_store_message, allowed, heard)
    internal._push_messages = push  # type: ignore[assignment]  # other names of the same
    FleetHttpClient.__init__ = _straight(FleetHttpClient.__init__)  # type: ignore[method-assign]
    for call in ("ActivateNode", "SendNodeHeartbeat", "PullMessages"):
        setattr(FleetHttpClient, call, _watched(call, getattr(FleetHttpClient, call), life))


def about(message: Message) -> tuple[str, str]:
    """Kind and round of a request: words of the server's, of any length, so what is neither is not written down."""
    kind, round = message.metadata.message_type, message.metadata.group_id
    return kind if kind in KINDS else "?", round if re.fullmatch("[0-9]{1,9}", round) else "?"


def _straight(init: Callable[..., None]) -> Callable[..., None]:
    """Follow no redirection: the server could have this machine call any address inside the hospital."""

    def started(client: FleetHttpClient, *args: Any, **given: Any) -> None:
        init(client, *args, **given)
        client._client.follow_redirects = False

    return started


def _pulling(
    pull_and_store: Callable[..., int | None], allowed: Callable[[bytes], bool], heard: Callable[[Message | None], None]
) -> Callable[..., int | None]:
    """Flower's own, which asks for all code whether it is allowed, and tells of each message, or of none."""

    def pull(**given: Any) -> int | None:
        runs: list[Run] = []

        def get_run(run_id: int) -> Run:
            runs.append(given["get_run"](run_id))
            return runs[-1]

        def get_fab(fab_hash: str, run_id: int) -> Fab:
            fab: Fab = given["get_fab"](fab_hash, run_id)
            fab.verifications = {"valid_license": "-"}  # without it Flower does not ask `verify`
            return fab

        def verify(fab: Fab, _: object) -> bool:
            if not allowed(fab.content):
                return False
            # By these the code is found when it is run: the server's words could lead elsewhere.
            runs[-1].fab_id, runs[-1].fab_version = get_metadata_from_config(get_fab_config(fab.content))
            runs[-1].fab_hash = fab.hash_str = hashlib.sha256(fab.content).hexdigest()
            runs[-1].primary_task_type = TaskType.SERVER_APP  # else it could be for another program of Flower's
            return True

        def receive() -> Any:
            received = given["receive"]()
            heard(received and received[0])
            return received

        internal._verify_fab = verify  # type: ignore[assignment]  # other names of the same
        ours = {"get_run": get_run, "get_fab": get_fab, "receive": receive, "trusted_entities": {"approved": "-"}}
        return pull_and_store(**{**given, **ours})

    return pull


def is_approved(folder: Path, code: bytes) -> bool:
    """Whether the hospital approved this code, as approved.json says now; a refusal is in its audit log."""
    sha256 = hashlib.sha256(code).hexdigest()
    try:
        if any(each.sha256 == sha256 for each in approved(folder)):
            return True
    except (ConfigError, OSError) as error:
        complain(f"approved.json: {error}; no code runs until it is fixed")
    complain(f"code {sha256} refused: not approved")
    _note(folder, {"event": "code_refused", "sha256": sha256})
    return False


def _note(folder: Path, event: dict[str, Any]) -> None:
    """Note in the hospital's audit log what no ClientApp can note."""
    try:
        note(read_site(folder), event)
    except Exception as error:  # whatever it is, code stays refused, and an error tells nothing
        complain(f"{event['event']} could not be noted: {error}")


def _watched(name: str, call: Callable[..., Any], life: Life) -> Callable[..., Any]:
    """The call, whose outcome is noted in state.json."""

    def watched(client: FleetHttpClient, request: Any) -> Any:
        try:
            answer = call(client, request)
        except Exception as error:
            life.failed(error)
            raise
        if getattr(answer, "success", True):  # of a heartbeat: false where the server does not know the node
            life.reached(name)
        return answer

    return watched


if __name__ == "__main__":
    run_supernode(Path(sys.argv[1]))
