"""Flower's SuperNode, which here runs approved code only, and says that it is alive.

Flower 1.41 can ask for code that is signed, by entities that a central service knows; a hospital approves a hash. So
three private names of it are replaced in one place: this file. tests/deploy try an altered app.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flwr.supernode.start_client_internal as internal
from flwr.supernode.cli.flower_supernode import flower_supernode

from shared.files import write_json

_pull, _push = internal._pull_and_store_message, internal._push_messages


def approved(folder: Path) -> set[str]:
    """SHA-256 of every code that the hospital approved, in hex; nobody else writes this file."""
    file = folder / "approved.json"
    return {entry["sha256"] for entry in json.loads(file.read_text())} if file.exists() else set()


def run_supernode(folder: Path, words: list[str]) -> None:
    """Run a SuperNode with Flower's own `words`; state.json in `folder` says what it does."""

    def verify(fab: Any, _: object) -> bool:
        return hashlib.sha256(fab.content).hexdigest() in approved(folder)

    def pull(**given: Any) -> int | None:
        get_fab, receive = given["get_fab"], given["receive"]

        def checked(fab_hash: str, run_id: int) -> Any:
            fab = get_fab(fab_hash, run_id)
            fab.verifications = {"valid_license": "-"}  # without it Flower does not ask `verify`
            return fab

        def heard() -> Any:
            received = receive()
            _say(folder, "idle" if received is None else "working")
            return received

        return _pull(**{**given, "get_fab": checked, "receive": heard, "trusted_entities": {"approved": "-"}})

    def push(**given: Any) -> None:
        _push(**given)
        _say(folder, "idle")

    internal._verify_fab, internal._pull_and_store_message, internal._push_messages = verify, pull, push
    sys.argv = ["flower-supernode", *words]
    flower_supernode()


def _say(folder: Path, state: str) -> None:
    write_json(folder / "state.json", {"state": state})


Command = Callable[[], None]

if __name__ == "__main__":
    run_supernode(Path(sys.argv[1]), sys.argv[2:])
