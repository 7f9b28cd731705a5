"""Replies on disk before they leave: the same request gets the same bytes, without training again."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from shared.files import write_bytes
from shared.messages import Reply

KEEP = 2
"""The newest, and the one before it: a server that was restored from a backup may ask one round back."""


ROOM = ".room.tmp"
"""Set aside for a reply; `store` removes it with all that is half."""


class Outbox:
    """The last replies of one site, by the request's key."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which need not be there yet."""
        self._folder = folder

    def find(self, key: str) -> Reply | None:
        """Return the reply that was stored for this request, or None."""
        head = self._folder / f"{key}.json"
        if not head.exists():
            return None
        return Reply(**json.loads(head.read_text()), update=head.with_suffix(".safetensors").read_bytes())

    def make_room(self, size: int) -> None:
        """Set so many bytes of the disk aside for the next reply, or raise OSError; `store` takes them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ROOM).open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS, on which a simulation may run
                file.write(bytes(size))

    def store(self, key: str, reply: Reply) -> None:
        """Store a reply, the JSON last since it makes it count; then drop the oldest."""
        for half in self._folder.glob(".*.tmp"):  # ROOM, and what a killed process left: one message at a time
            half.unlink(missing_ok=True)
        head = asdict(reply)
        write_bytes(self._folder / f"{key}.safetensors", head.pop("update"))
        write_bytes(
            self._folder / f"{key}.json", json.dumps(head).encode()
        )  # a loss may be NaN: Python's JSON keeps it
        # Of the others: this one is the newest, whatever the clock says.
        others = [path for path in self._folder.glob("*.json") if path.name != f"{key}.json"]
        for old in sorted(others, key=lambda path: (path.stat().st_mtime_ns, path.name))[: 1 - KEEP]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)
