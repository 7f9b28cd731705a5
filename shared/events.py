"""The events of a run's history.jsonl, for whoever reads it; `gliofed.server.round.history` writes them."""

import json
from pathlib import Path
from typing import Any

from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import RunFolder

Event = dict[str, Any]


def read_events(path: Path) -> list[Event]:
    """Read every event so far, none where there is no file; a line that is being written is not one yet.

    Raises ConfigError, with the number of a line that is damaged.
    """
    text = path.read_text(errors="replace") if path.exists() else ""
    events = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            events.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise ConfigError(f"{path}: line {number} is no event; remove it, or put the file back") from None
    return events


def events_of(run: Path) -> list[Event]:
    """The events so far of the run in this folder. Raises ConfigError where there is no history, or a damaged one."""
    path = RunFolder(run).history
    if not path.exists():
        raise ConfigError(f"{run}: no history.jsonl there, so no run; give a run's folder")
    return read_events(path)
