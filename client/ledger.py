"""What each patient has been charged for, on the hospital's disk: one ledger a study, which no crash makes forget."""

import fcntl
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from client.policy import DeclinedError
from shared.accounting import Spent, rdp_epsilon
from shared.files import append_line, write_bytes, write_json
from shared.parse import ConfigError, parse

SLACK = timedelta(minutes=5)
"""A clock may be set back by so much: time servers do it."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Gaussian mechanisms, written down before they run, that every patient is charged for."""

    what: Literal["train", "count"]
    """Steps of a round, or the noisy number of patients."""
    run_id: str
    round: int
    sigma: float
    """Noise multiplier."""
    rate: float
    """Chance of each patient to be in a step."""
    steps: int
    patients: int
    """Training patients: exact, and no part of what leaves."""
    private: bool = True
    """False in test mode, whose noise can be computed by anybody."""
    noisy: int | None = None
    """What was drawn for `count`, of all patients."""
    cohort: str = ""
    """Of `count`: SHA-256 of the patients' names, in hex."""
    split: str = ""
    """How patients are parted for validation."""
    time: str = ""
    """UTC, ISO 8601; of the line."""


@dataclass(frozen=True)
class _Line:
    charge: Charge
    before: str
    """SHA-256 of the line before it, in hex."""


@dataclass
class Ledger:
    """The charges of one study, in `folder`. Only `hold` gives one that may be written to."""

    folder: Path
    delta: float
    """Of the study's epsilon: the site's own, or `client.privacy.default_delta` when the ledger is opened."""
    charges: list[Charge]
    head: str
    """SHA-256 of the last line, in hex."""

    @property
    def spent(self) -> Spent:
        """Every charge, equal mechanisms together."""
        return _together(self.charges)

    @property
    def private(self) -> bool:
        """Whether nothing was trained in test mode."""
        return all(charge.private for charge in self.charges)

    @property
    def split(self) -> str:
        """How the study parts its patients; empty before the first charge."""
        return next((charge.split for charge in self.charges if charge.split), "")

    def epsilon_of_run(self, more: Charge) -> float:
        """Epsilon of the run of `more`, with it."""
        of_run = [charge for charge in self.charges if charge.run_id == more.run_id]
        return rdp_epsilon(_together([*of_run, more]), self.delta)

    def epsilon(self) -> float:
        """Epsilon of each patient so far, by RDP."""
        return rdp_epsilon(self.spent, self.delta)

    def charge(self, charge: Charge, ceiling: float | None) -> None:
        """Write a charge, or raise DeclinedError where epsilon would pass the `ceiling`; it is on disk on return."""
        charge = replace(charge, time=_now().isoformat(timespec="seconds"))
        after = rdp_epsilon(_together([*self.charges, charge]), self.delta)
        if ceiling is not None and not (self.private and charge.private):
            raise DeclinedError("budget", "policy.max_epsilon cannot be kept: a run in test mode is not private")
        if ceiling is not None and not after <= ceiling:  # NaN is over it
            raise DeclinedError(
                "budget",
                f"{charge.what} of round {charge.round} would bring epsilon to {after:.3f}, and "
                f"policy.max_epsilon={ceiling:g} (spent: {self.epsilon():.3f}, delta={self.delta:.2g})",
            )
        line = json.dumps(asdict(_Line(charge, self.head)), sort_keys=True)
        append_line(_file(self.folder), line)
        self.charges.append(charge)
        self.head = _hash(line)
        _write_head(self)

    def noisy_count(self, cohort: str) -> int | None:
        """The number of patients that was drawn for these patients, if one was."""
        return next((c.noisy for c in self.charges if c.what == "count" and c.cohort == cohort), None)


def ledger_folder(work: str) -> Path:
    """Where the ledger of a site with this work folder is."""
    return Path(work) / "ledger"


@contextmanager
def hold(folder: Path, delta: float) -> Iterator[Ledger]:
    """Hold the ledger in `folder` for writing, a new one with `delta` where there is none.

    Raises DeclinedError: ledger_busy where another process holds it, ledger where it cannot be relied on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DeclinedError("ledger_busy", f"{folder}: another run holds this ledger; wait until it ends") from None
        try:
            ledger = read_ledger(folder)
        except ConfigError as error:
            raise DeclinedError("ledger", str(error)) from None
        if ledger is None:
            ledger = _open(folder, delta)
        else:
            _drop_unfinished(folder)
            _write_head(ledger)  # a process may have died between a line and its head
        if ledger.charges and (last := _time(ledger.charges[-1])) > _now() + SLACK:
            raise DeclinedError(
                "ledger", f"{_file(folder)}: its last line is of {last}, which is yet to come; set the clock right"
            )
        yield ledger


def read_ledger(folder: Path) -> Ledger | None:
    """Read and verify a ledger; None where there is none. A line that a killed process left unfinished is no charge.

    Raises ConfigError where lines are missing, changed or cannot be read.
    """
    file, head_file = _file(folder), folder / "head.json"
    if not head_file.exists() and not (file.exists() and file.stat().st_size):
        return None  # or a process died when it opened one
    try:
        known = json.loads(head_file.read_text())  # first: a line that is written meanwhile may come on top
        text = file.read_text()
        count, delta, expected = int(known["lines"]), float(known["delta"]), str(known["hash"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ConfigError(f"{folder}: the ledger cannot be read; put ledger.jsonl and head.json back") from None
    lines = text[: text.rfind("\n") + 1].splitlines()
    hashes = [_hash(f"delta={delta!r}")]
    charges = []
    for number, text in enumerate(lines, start=1):
        try:
            line = parse(_Line, text)
            _time(line.charge)
        except ValueError:  # a ConfigError is one
            raise ConfigError(
                f"{file}: line {number} is no charge with a time and its zone; put the ledger back from a copy"
            ) from None
        if line.before != hashes[-1]:
            raise ConfigError(f"{file}: line {number} does not follow the one before; put the ledger back from a copy")
        charges.append(line.charge)
        hashes.append(_hash(text))
    if len(lines) not in (count, count + 1) or hashes[count] != expected:
        raise ConfigError(f"{file}: {len(lines)} lines, not the {count} of head.json; put the ledger back from a copy")
    return Ledger(folder, delta, charges, hashes[-1])


def _open(folder: Path, delta: float) -> Ledger:
    ledger = Ledger(folder, delta, [], _hash(f"delta={delta!r}"))
    write_bytes(_file(folder), b"")
    _write_head(ledger)
    return ledger


def _write_head(ledger: Ledger) -> None:
    """Say how many lines there are, so that a cut-off end shows."""
    head: dict[str, Any] = {"lines": len(ledger.charges), "hash": ledger.head, "delta": ledger.delta}
    write_json(ledger.folder / "head.json", head)


def _drop_unfinished(folder: Path) -> None:
    text = _file(folder).read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        write_bytes(_file(folder), whole)


def _together(charges: list[Charge]) -> Spent:
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[charge.sigma, charge.rate] += charge.steps
    return [(sigma, rate, count) for (sigma, rate), count in steps.items()]


def _time(charge: Charge) -> datetime:
    """When it was written. Raises ValueError where nobody can tell."""
    time = datetime.fromisoformat(charge.time)
    if time.tzinfo is None:
        raise ValueError(f"time={charge.time}: has no time zone")
    return time


def _file(folder: Path) -> Path:
    return folder / "ledger.jsonl"


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC)
