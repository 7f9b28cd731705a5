"""history.jsonl: what happened, a line an event."""

import json
from pathlib import Path
from typing import Any

from gliofed.shared.events import Event as Event
from gliofed.shared.events import read_events
from gliofed.shared.files import append_line, write_bytes


class History:
    """The events of one run, on disk."""

    def __init__(self, path: Path) -> None:
        """Look at a history, which need not be there yet; nothing is changed."""
        self.path = path

    def repair(self) -> None:
        """Drop a last line that a killed process left unfinished; only for the process that writes."""
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            write_bytes(self.path, whole)

    def append(self, event: Event) -> None:
        """Add an event; it is on disk when this returns."""
        append_line(self.path, json.dumps(event, allow_nan=False, separators=(",", ":")))

    def events(self) -> list[Event]:
        """Every event so far; a line that is being written is not one yet."""
        return read_events(self.path)

    def forget_after(self, round: int) -> None:
        """Drop rounds that the checkpoint does not have: somebody went back to an older one. Charges stay."""
        events = self.events()
        kept = [event for event in events if event.get("round", 0) <= round]
        if kept != events:
            write_bytes(self.path, b"".join(json.dumps(event).encode() + b"\n" for event in kept))

    def rounds(self) -> list[Event]:
        """The finished rounds, in order."""
        return [event for event in self.events() if event["event"] == "round"]


def site_line(**known: Any) -> Event:
    """One site's part of a round's event, with every key there."""
    empty = {"status": None, "reason": None, "patients": None, "train": None, "evaluate": None, "evaluated": None}
    return empty | {"bytes_down": 0, "bytes_up": 0} | known


def add_reason(line: Event, reason: str) -> None:
    """Say one thing more of a site in its line; what was said stays."""
    line["reason"] = "; ".join(filter(None, (line["reason"], reason)))
