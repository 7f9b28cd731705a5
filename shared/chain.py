"""A log that is only added to: each line has the SHA-256 of the one before, and head.json beside it that of the last.

A line that was changed, removed, swapped or put in shows, and so does an end that was cut off. Nobody is kept from
writing a whole log and its head anew: that shows only to who has noted an earlier head elsewhere.

A line can be redacted, so that a copy tells only what its reader may know: all that follows the hash of the line before
is replaced by its SHA-256. The hash of a line is always that of its redacted form, so the copy verifies like the log.
Each line has a random salt, without which a short line could be guessed from its SHA-256. Lines of earlier versions
have none; their hash is that of the line itself, and they cannot be redacted.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from gliofed.shared.files import append_line, write_bytes, write_json
from gliofed.shared.locks import is_locked, lock_file
from gliofed.shared.parse import ConfigError
from gliofed.shared.wording import quantity

LOCK = ".lock"
REDACTED = "redacted"
"""The event of a line that was redacted."""
_SALTED = re.compile(r'(\{"before": "[0-9a-f]{64}", )("salt": "[0-9a-f]{32}", .*\})')
_REST = re.compile(r'\{"before": "[0-9a-f]{64}", "rest": "[0-9a-f]{64}"\}')


@dataclass
class Chain:
    """The whole lines of a log; every one of them follows the one before."""

    file: Path
    lines: list[str]
    hashes: list[str]
    """SHA-256 in hex of the root, and then of each line."""

    @property
    def head(self) -> str:
        """SHA-256 of the last line, in hex."""
        return self.hashes[-1]

    def events(self) -> list[dict[str, Any]]:
        """What the lines say, {"event": REDACTED} where one is redacted, or ConfigError."""
        events = []
        for number, line in enumerate(self.lines, start=1):
            try:
                events.append({"event": REDACTED} if _REST.fullmatch(line) else dict(json.loads(line)))
            except (ValueError, TypeError, RecursionError):
                raise ConfigError(f"{self.file}: line {number} is no event; put the file back from a copy") from None
        return events

    def append(self, *events: Mapping[str, Any]) -> str:
        """Add events, each with its time (UTC); they are on disk on return. Only `hold_chain` gives one that may.

        Returns the new head.
        """
        now, new, hashes = _now().isoformat(timespec="seconds"), [], [self.head]
        for event in events:
            new.append(link({"time": now, **event}, hashes[-1], secrets.token_hex(16)))
            hashes.append(line_hash(new[-1]))
        append_line(self.file, "\n".join(new))
        self.lines += new
        self.hashes += hashes[1:]
        with suppress(OSError):  # a disk that is full by now: the lines are there, and the next who holds it writes it
            self.write_head()
        return self.head

    def write_head(self) -> None:
        """Say how many lines there are, so that a cut-off end shows."""
        write_json(head_file(self.file), {"lines": len(self.lines), "hash": self.head})


@contextmanager
def hold_chain(file: Path, wait: float = 0.0) -> Iterator[Chain]:
    """Hold a log for writing, a new one where there is none; wait at most so many seconds for who has it.

    Raises BusyError, ConfigError where its lines do not hold, and OSError.
    """
    with lock(file.parent, wait):
        if not begun(file):
            write_bytes(file, b"")
            chain = Chain(file, [], [digest("")])
            chain.write_head()
        else:
            known = read_head(head_file(file))
            chain = read_chain(file, "", known)
            drop_unfinished(file)
            if known["lines"] != len(chain.lines):  # a process died between a line and its head
                chain.write_head()
        yield chain


def lock(folder: Path, wait: float = 0.0) -> IO[str]:
    """Take the lock of a log's folder; close it in the end. Raises BusyError."""
    return lock_file(folder / LOCK, f"{folder}: another run holds this log; wait until it ends", wait=wait)


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a log's folder."""
    return is_locked(folder / LOCK)


def begun(file: Path) -> bool:
    """Whether there is a log; an empty file without a head is of a process that died when it began one."""
    return head_file(file).exists() or (file.exists() and file.stat().st_size > 0)


def read_head(path: Path) -> dict[str, Any]:
    """What head.json says, or ConfigError. To be read before the log: a line that is written meanwhile is on top."""
    try:
        head = json.loads(path.read_text())
        return {**head, "lines": int(head["lines"]), "hash": str(head["hash"])}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ConfigError(f"{path}: cannot be read; put it and its log back from a copy") from None


def read_chain(file: Path, root: str, head: Mapping[str, Any] | None) -> Chain:
    """Read a log whose first line follows the text `root`; None: there is no head to hold it against.

    A line that a killed process left unfinished is none; whole ones after those of the head are: it may have died
    before it wrote that. Raises ConfigError with the first line that does not hold.
    """
    try:
        lines = file.read_bytes().decode().split("\n")[:-1]
    except (OSError, ValueError):
        raise ConfigError(f"{file}: cannot be read; put it and head.json back from a copy") from None
    hashes = [digest(root)]
    for number, line in enumerate(lines, start=1):
        if not line.startswith(_follows(hashes[-1])):
            raise ConfigError(f"{file}: line {number} does not follow the one before; put the file back from a copy")
        hashes.append(line_hash(line))
    if head is not None and not 0 <= head["lines"] <= len(lines):
        sentence = f"{quantity(len(lines), 'line')}, not the {head['lines']} of head.json: its end was cut off"
        raise ConfigError(f"{file}: {sentence}; put both files back from a copy")
    if head is not None and hashes[head["lines"]] != head["hash"]:
        sentence = f"line {head['lines']} is not the one that head.json tells of"
        raise ConfigError(f"{file}: {sentence}; put both files back from a copy")
    return Chain(file, lines, hashes)


def drop_unfinished(file: Path) -> None:
    """Drop what a killed process left: half a line, and temporary files. For who holds the lock."""
    for half in file.parent.glob(".*.tmp"):
        half.unlink(missing_ok=True)
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        write_bytes(file, whole)


def link(values: Mapping[str, Any], before: str, salt: str = "") -> str:
    """The line, JSON with sorted keys, that follows the one with the hash `before`; that comes first, then the salt."""
    salted = f', "salt": "{salt}"' if salt else ""
    return _follows(before) + salted + ", " + json.dumps(values, sort_keys=True, allow_nan=False)[1:]


def line_hash(line: str) -> str:
    """SHA-256 in hex by which the next line names this one; the same for its redacted form."""
    return digest(redact(line) or line)


def redact(line: str) -> str | None:
    """The line without what it says; None where it cannot be redacted, for it has no salt, or is redacted already."""
    parts = _SALTED.fullmatch(line)
    return parts and f'{parts[1]}"rest": "{digest(parts[2])}"}}'


def digest(text: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _follows(before: str) -> str:
    """How a line begins: compared as text, so that long logs are verified in no time; the rest is in its hash."""
    return f'{{"before": "{before}"'


def head_file(file: Path) -> Path:
    """Where the head of a log is."""
    return file.parent / "head.json"


def _now() -> datetime:
    return datetime.now(UTC)
