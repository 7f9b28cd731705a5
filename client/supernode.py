"""Flower's SuperNode, which here runs approved code only, and notes in state.json what it does.

Flower 1.41 can ask for code that is signed, by entities that a central service knows; a hospital approves a hash. So
private names of it are replaced, all in this file, which refuses to run with another Flower. tests/deploy try it.
"""

import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flwr.supernode.start_client_internal as internal
from flwr import __version__
from flwr.supercore.error import FlowerError
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.approve import approved
from client.audit import note
from client.site_file import read_site
from shared.files import write_json
from shared.kit import parse_kit
from shared.parse import ConfigError

TESTED = "1.41.0"
STATE = "state.json"
EVERY = 10.0
"""Seconds between two writings of state.json while nothing changes but the time of contact."""


class Life:
    """What the SuperNode does, on disk for its supervisor and for `status`. Two threads of Flower tell of it."""

    def __init__(self, folder: Path) -> None:
        """Begin: a new process, which has had no contact yet."""
        self._file, self._lock, self._written = folder / STATE, threading.Lock(), 0.0
        self._says: dict[str, Any] = {"pid": os.getpid(), "contact": None, "pulled": None}
        self._says |= {"problem": None, "refused": None}
        self.say("connecting")

    def say(self, state: str, kind: str | None = None, round: str | None = None) -> None:
        """Tell of a state that lasts: connecting, idle, or working on a request of this kind and round."""
        with self._lock:
            about = {"state": state, "kind": kind, "round": round}
            if any(self._says.get(key) != value for key, value in about.items()):
                self._says |= {**about, "since": _now()}
                self._write()

    def reached(self, call: str) -> None:
        """Tell that the server has answered; a pull counts by itself, for heartbeats go on without it."""
        with self._lock:
            self._says["pulled" if call == "PullMessages" else "contact"] = _now()
            mended, self._says["problem"] = self._says["problem"] is not None, None
            if mended or time.monotonic() - self._written > EVERY:
                self._write()

    def failed(self, error: Exception) -> None:
        """Tell why a call had no answer."""
        with self._lock:
            if self._says["problem"] != (problem := _words(error)):
                self._says["problem"] = problem
                self._write()

    def refused(self, sha256: str) -> None:
        """Tell of code that came and was not approved."""
        with self._lock:
            self._says["refused"] = sha256
            self._write()

    def _write(self) -> None:
        try:
            write_json(self._file, self._says)
            self._written = time.monotonic()
        except OSError as error:  # a full disk must not end a training
            print(f"{self._file}: {error.strerror}", file=sys.stderr, flush=True)


def run_supernode(folder: Path) -> None:
    """Run a SuperNode for the hospital's folder until it ends; its process ends with it."""
    if __version__ != TESTED:
        # What is replaced here might not be what checks the code there.
        sys.exit(f"flwr {__version__}: approval of code is known to hold with {TESTED}; install that")
    folder = folder.resolve()
    replace_names(folder, Life(folder))
    sys.argv = ["flower-supernode", *words_for(folder)]
    flower_supernode()
    # Flower logs a failed call, ends its loop and leaves the process: offline for ever, with its port.
    os._exit(1)


def words_for(folder: Path) -> list[str]:
    """Flower's own options; the port of its Runtime API is one that is free."""
    kit = parse_kit((folder / "kit.json").read_bytes(), str(folder / "kit.json"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A quote as TOML's escape, for Flower looks for the closing one before it reads TOML.
    quoted = '"' + json.dumps(str(folder), ensure_ascii=False)[1:-1].replace('\\"', "\\u0022") + '"'
    return [
        *("--superlink", kit.address),
        *("--root-certificates", str(folder / "ca.crt")),
        *("--auth-supernode-private-key", str(folder / "site.key")),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--isolation", "subprocess"),
        *("--node-config", f"folder={quoted}"),
    ]


def replace_names(folder: Path, life: Life) -> None:
    """Put our check of the code, and our notes, around Flower's own."""
    pull_and_store = internal._pull_and_store_message

    def verify(fab: Any, _: object) -> bool:
        if is_approved(folder, fab.content):
            return True
        life.refused(hashlib.sha256(fab.content).hexdigest())
        return False

    def pull(**given: Any) -> int | None:
        get_fab, receive = given["get_fab"], given["receive"]

        def checked(fab_hash: str, run_id: int) -> Any:
            fab = get_fab(fab_hash, run_id)
            fab.verifications = {"valid_license": "-"}  # without it Flower does not ask `verify`
            return fab

        def heard() -> Any:
            received = receive()
            if received is None:
                life.say("idle")
            else:
                about = received[0].metadata
                life.say("working", about.message_type, about.group_id)
            return received

        return pull_and_store(**{**given, "get_fab": checked, "receive": heard, "trusted_entities": {"approved": "-"}})

    internal._verify_fab = verify  # type: ignore[assignment]  # other names of the same
    internal._pull_and_store_message = pull  # type: ignore[assignment]
    for call in ("ActivateNode", "SendNodeHeartbeat", "PullMessages"):
        setattr(FleetHttpClient, call, _told(call, getattr(FleetHttpClient, call), life))


def is_approved(folder: Path, code: bytes) -> bool:
    """Whether the hospital approved this code, as approved.json says now; a refusal is in its audit log."""
    sha256 = hashlib.sha256(code).hexdigest()
    try:
        if any(each.sha256 == sha256 for each in approved(folder)):
            return True
    except (ConfigError, OSError) as error:
        print(f"approved.json: {error}; no code runs until it is mended", file=sys.stderr, flush=True)
    print(f"code {sha256} refused: not approved", file=sys.stderr, flush=True)
    try:
        note(read_site(folder), {"event": "code_refused", "sha256": sha256})
    except Exception as error:  # whatever it is, the code stays refused
        print(f"code_refused could not be noted: {error}", file=sys.stderr, flush=True)
    return False


def _told(name: str, call: Callable[..., Any], life: Life) -> Callable[..., Any]:
    """The call, and what came of it."""

    def told(client: FleetHttpClient, request: Any) -> Any:
        try:
            answer = call(client, request)
        except Exception as error:
            life.failed(error)
            raise
        if getattr(answer, "success", True):  # of a heartbeat: false where the server does not know the node
            life.reached(name)
        return answer

    return told


def _words(error: Exception) -> str:
    """A refusal's number of HTTP and Flower's own, as HTTP 403 code 2004, or what the connection failed of."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {error}"
    known = FlowerError.from_json(response.text)
    return f"HTTP {response.status_code}" + (f" code {known.code}" if known else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    run_supernode(Path(sys.argv[1]))
