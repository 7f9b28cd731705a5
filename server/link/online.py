"""What `start` knows at this moment, for `status`: link/state.json, written anew every few seconds."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.chain import is_held
from gliofed.shared.files import write_json

OLDEST = 60.0
"""Seconds after which it is not trusted any more: `start` hangs. It waits 30 for a SuperLink that does not answer, and
up to 20 for a program to end.
"""


def write_online(folder: Path, known: Mapping[str, Any]) -> None:
    """Write what is known now."""
    write_json(FederationFolder(folder).online, {"time": time.time(), **known})


def read_online(folder: Path) -> dict[str, Any] | None:
    """Read what is known; None where `start` does not run: what a killed one left says nothing of now."""
    if not is_held(FederationFolder(folder).link):
        return None
    try:
        known = dict(json.loads(FederationFolder(folder).online.read_text()))
        return known if abs(time.time() - known["time"]) <= OLDEST else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
