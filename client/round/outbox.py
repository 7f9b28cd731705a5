"""Replies on disk before they leave: the same request gets the same bytes, without training again."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gliofed.shared.files import write_bytes
from gliofed.shared.messages import Reply

KEEP = 2
"""The newest, and the one before it: a server that was restored from a backup may ask one round back."""
ROOM = ".room.tmp"
"""Set aside for a reply; `store` removes it with all that is half."""


@dataclass(frozen=True)
class Stored:
    """A reply on disk. Its update is as large as the model, and is not read before it is sent."""

    head: Reply
    """All but the update."""
    update: Path

    def read(self) -> Reply | None:
        """Return the whole reply; None where the update cannot be read."""
        with suppress(OSError):
            return replace(self.head, update=self.update.read_bytes())
        return None


@dataclass(frozen=True)
class Outbox:
    """The last replies of one site, by the request's key."""

    folder: Path
    """It need not be there yet."""

    def find(self, key: str, withdrawn: frozenset[str] = frozenset()) -> Stored | None:
        """Find the reply to a request; None: there is none, it is damaged, or a pseudonym of `withdrawn` is in it."""
        update = self.folder / f"{key}.safetensors"
        try:
            update.stat()
            values = json.loads((self.folder / f"{key}.json").read_text())
            return None if _trained_with(values.pop("trained_on", None), withdrawn) else Stored(Reply(**values), update)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None  # the site trains anew

    def with_patient(self, pseudonym: str) -> list[Path]:
        """The files of the replies that a patient is in, each JSON last: until it is gone the other is found by it."""
        heads = sorted(self.folder.glob("*.json"))
        found = [each for each in heads if _trained_with(_read(each).get("trained_on"), frozenset({pseudonym}))]
        return [path for head in found for path in (head.with_suffix(".safetensors"), head)]

    def make_room(self, size: int) -> None:
        """Set so many bytes of the disk aside for the next reply, or raise OSError; `store` takes them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ROOM).open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS, on which a simulation may run
                file.write(bytes(size))

    def give_room(self) -> None:
        """Give back what was set aside; whoever does it stores at once."""
        (self.folder / ROOM).unlink(missing_ok=True)

    def store(self, key: str, reply: Reply, trained_on: Sequence[str] = ()) -> None:
        """Store a reply and its patients' pseudonyms, the JSON last since it makes it count; then drop the oldest."""
        for half in self.folder.glob(".*.tmp"):  # ROOM, and what a killed process left: one message at a time
            half.unlink(missing_ok=True)
        head = {**asdict(reply), "trained_on": list(trained_on)}
        write_bytes(self.folder / f"{key}.safetensors", head.pop("update"))
        # A loss may be NaN: Python's JSON keeps it.
        write_bytes(self.folder / f"{key}.json", json.dumps(head).encode())
        # Of the others: this one is the newest, whatever the clock says.
        others = [path for path in self.folder.glob("*.json") if path.name != f"{key}.json"]
        for old in sorted(others, key=lambda path: (path.stat().st_mtime_ns, path.name))[: 1 - KEEP]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)


def _trained_with(patients: list[str] | None, some: frozenset[str]) -> bool:
    """Whether one of them is in a reply. One of an earlier version does not say who is, and may have anybody."""
    return bool(some) and (patients is None or not some.isdisjoint(patients))


def _read(head: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(head.read_text()))
    except (ValueError, TypeError, RecursionError):  # damaged, so nobody knows who is in it
        return {}
