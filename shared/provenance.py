"""provenance.json beside a model's weights: the runs that made them, oldest first, without a name of anybody."""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

from gliofed.shared.files import json_bytes
from gliofed.shared.parse import MALFORMED, ConfigError
from gliofed.shared.run_folder import ModelFolder

Chain = list[dict[str, Any]]
"""One entry for each run, as `gliofed.server.round.provenance.entry_of` makes them; before them, where the first run
was given weights that no provenance came with, one entry with the key `origin`."""

LARGEST = 2**20
"""Bytes; an entry has about a thousand."""
OWN_ENTRY = 2**14
"""Bytes, more than the entry of one run has."""
LONGEST_TEXT = 300
MOST_DIGITS = 15
GROUPS = ("model", "patients", "privacy", "versions")
"""Keys of an entry whose value is a group."""


def read_provenance(folder: Path, sha256: str, room: int = 0) -> Chain:
    """Read how the weights of a model's folder came to be; empty where no file says it. `sha256` is of the weights.

    Raises ConfigError where the file is damaged, or would be larger than LARGEST with `room` bytes more; where it is of
    other weights than those beside it; and where an entry does not begin with the weights that the entry before it
    ended with. A forged file that fits shows in none of these, but has nothing that could not be shown or written.
    """
    file = ModelFolder(folder).provenance
    again = "copy the whole folder again from where the model was made"
    try:
        if not file.exists():
            return []
        if file.stat().st_size > LARGEST:
            raise ConfigError(f"{file}: larger than {LARGEST} bytes, which no provenance is; {again}")
        found = [_entry(entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
        ends = [_hash(entry["weights_sha256"]) for entry in found]
        begins = [entry.get("init_sha256") for entry in found]
    except ConfigError:
        raise
    except (OSError, *MALFORMED) as error:
        raise ConfigError(f"{file}: damaged ({type(error).__name__}); {again}") from None
    if len(json_bytes(found)) + room > LARGEST:
        alone = f"give {ModelFolder(folder).weights.name} from a folder of its own, without its provenance"
        raise ConfigError(f"{file}: larger than {LARGEST} bytes with the new run; {alone}")
    if not ends or ends[-1] != sha256:
        other = f"{ModelFolder(folder).weights.name} beside it, whose SHA-256 is {sha256[:12]}..."
        raise ConfigError(f"{file}: its last entry is not of {other}; {again}")
    if begins[1:] != ends[:-1] or begins[0] is not None:
        raise ConfigError(f"{file}: an entry does not begin with the weights that the one before it left; {again}")
    return found


def of_unknown_origin(sha256: str, run_id: str | None) -> Chain:
    """Begin the chain of weights without a provenance: of the run with this id, or of a bare file where it is None."""
    if run_id is None:
        note = "a file of tensors alone: nothing says on what they were trained, or what the channels mean"
        return [{"origin": "file", "weights_sha256": sha256, "note": note}]
    note = "no provenance came with the model of this run: nothing says on what it was trained"
    return [{"origin": "run", "run_id": run_id, "weights_sha256": sha256, "note": note}]


def not_private(found: Chain) -> str | None:
    """Say why some of the weights' training had no differential privacy; None: all of it had."""
    for entry in found:
        privacy = entry.get("privacy")
        if not isinstance(privacy, dict) or "origin" in entry:
            return "nobody knows how they were trained"
        if privacy.get("mechanism") in ("none", None) or privacy.get("test_mode") is not False:
            return f"they were trained without privacy in run {entry.get('run_id')}"
    return None


def _entry(value: Any) -> dict[str, Any]:
    """One run, or an origin. Raises ValueError for what could not be shown or written: other runs' words go on."""
    entry: dict[str, Any] = dict(value)
    facts = [pair for key, each in entry.items() for pair in (each if isinstance(each, dict) else {key: each}).items()]
    if not all(map(_is_fact, [*entry, *chain.from_iterable(facts)])):
        raise ValueError("a value that is no short text or number")
    if not all(isinstance(entry.get(key, {}), dict) for key in GROUPS) or ("round" in entry) != ("rounds" in entry):
        raise ValueError("a value of another kind")
    if isinstance(entry.get("privacy", {}).get("epsilon"), str):
        raise ValueError("a text for a number")
    return entry


def _is_fact(value: object) -> bool:
    """Whether a value is a text of one short line, or a number that has few digits."""
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and value.isprintable()
    return value is None or (isinstance(value, int | float) and abs(value) < 10**MOST_DIGITS)  # neither is NaN


def _hash(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("no SHA-256 in hex")
    return value
