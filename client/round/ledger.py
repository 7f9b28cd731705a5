"""What each patient has been charged for, on the hospital's disk: one ledger a study, which no crash makes forget."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from gliofed.client.round.policy import DeclinedError
from gliofed.shared.accounting import Spent, rdp_epsilon
from gliofed.shared.chain import begun, digest, drop_unfinished, head_file, link, lock, read_chain, read_head
from gliofed.shared.files import append_line, write_bytes, write_json
from gliofed.shared.locks import BusyError
from gliofed.shared.parse import ConfigError, parse

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
    """The noisy number of all patients that was drawn for `count`, or that `train` was planned from; None: exact."""
    reading: str = ""
    """What that number is of: how the data is read, in JSON."""
    cohort: str = ""
    """Of `count`: keyed hash of the reading and of the patients' names, in hex."""
    split: str = ""
    """How patients are parted for validation."""
    time: str = ""
    """UTC, ISO 8601; of the line."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a request of a run asks for, where no earlier one asked for as little; a run keeps the least."""

    run_id: str
    epsilon: float
    delta: float
    time: str = ""
    """UTC, ISO 8601; of the line."""


@dataclass(frozen=True)
class _Line:
    before: str
    """SHA-256 of the line before it, in hex."""
    charge: Charge | None = None
    budget: Budget | None = None
    """One of the two is there."""


@dataclass
class Ledger:
    """The charges of one study, in `folder`. Only `hold` gives one that may be written to."""

    folder: Path
    delta: float
    """Of the study's epsilon: the site's own, or `gliofed.shared.accounting.default_delta` when it is opened."""
    lines: list[Charge | Budget]
    head: str
    """SHA-256 of the last line, in hex."""

    @property
    def charges(self) -> list[Charge]:
        """What was charged, in order."""
        return [line for line in self.lines if isinstance(line, Charge)]

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

    def budget(self, run_id: str) -> tuple[float, float] | None:
        """The least epsilon and the least delta that a run ever asked for; None: it asked for no budget."""
        lines = [line for line in self.lines if isinstance(line, Budget) and line.run_id == run_id]
        return (min(line.epsilon for line in lines), min(line.delta for line in lines)) if lines else None

    def keep_budget(self, run_id: str, epsilon: float, delta: float | None) -> tuple[float, float]:
        """Return the least that a run ever asked for, with what it asks for now; it is on disk on return.

        The study's delta counts where the run gives none, or a larger one.
        """
        known, asked = self.budget(run_id), (epsilon, min(delta or self.delta, self.delta))
        least = asked if known is None else (min(known[0], asked[0]), min(known[1], asked[1]))
        if least != known:
            self._write(Budget(run_id=run_id, epsilon=least[0], delta=least[1]))
        return least

    def epsilon(self) -> float:
        """Epsilon of each patient so far, by RDP."""
        return rdp_epsilon(self.spent, self.delta)

    def charge(self, charge: Charge, ceiling: float | None) -> None:
        """Write a charge; it is on disk on return.

        Raises DeclinedError where epsilon would pass the `ceiling`, or the run's what the run asked for.
        """
        if budget := self.budget(charge.run_id):
            self._check_run(charge, *budget)
        after = rdp_epsilon(_together([*self.charges, charge]), self.delta)
        if ceiling is not None and not (self.private and charge.private):
            raise DeclinedError("budget", "policy.max_epsilon cannot be kept: a run in test mode is not private")
        if ceiling is not None and not after <= ceiling:  # NaN is over it
            raise DeclinedError(
                "budget",
                f"{charge.what} of round {charge.round} would bring epsilon to {after:.3f}, and "
                f"policy.max_epsilon={ceiling:g} (spent: {self.epsilon():.3f}, delta={self.delta:.2g})",
            )
        self._write(charge)

    def _check_run(self, more: Charge, epsilon: float, delta: float) -> None:
        of_run = [charge for charge in self.charges if charge.run_id == more.run_id]
        after = rdp_epsilon(_together([*of_run, more]), delta)
        if not after <= epsilon:
            sentence = f"{more.what} of round {more.round} would bring the run to {after:.3f}, at delta={delta:.2g}"
            why = "a round that is tried again counts again"
            if more.what == "count":
                why = f"a larger policy.count_noise than {more.sigma:g} spends less"
            raise DeclinedError("budget", f"privacy.epsilon={epsilon:g}: {sentence}; {why}")

    def _write(self, line: Charge | Budget) -> None:
        line = replace(line, time=_now().isoformat(timespec="seconds"))
        text = link({"charge" if isinstance(line, Charge) else "budget": asdict(line)}, self.head)
        append_line(_file(self.folder), text)
        self.lines.append(line)
        self.head = digest(text)
        _write_head(self)

    def noisy_count(self, run_id: str, reading: str, cohort: str) -> int | None:
        """The number that was drawn: the run's own, whoever withdrew since, else one of just these patients."""
        drawn = [charge for charge in self.charges if charge.noisy is not None]
        own = [charge.noisy for charge in drawn if (charge.run_id, charge.reading) == (run_id, reading)]
        return next(iter([*own, *(charge.noisy for charge in drawn if charge.cohort == cohort)]), None)


@contextmanager
def hold(folder: Path, delta: float) -> Iterator[Ledger]:
    """Hold the ledger in `folder` for writing, a new one with `delta` where there is none.

    Raises DeclinedError: ledger_busy where another process holds it, ledger where it cannot be relied on.
    """
    try:
        held = lock(folder)
    except BusyError:
        raise DeclinedError("ledger_busy", f"{folder}: another run holds this ledger; wait until it ends") from None
    with held:
        try:
            ledger = read_ledger(folder)
        except ConfigError as error:
            raise DeclinedError("ledger", str(error)) from None
        if ledger is None:
            ledger = Ledger(folder, delta, [], digest(_root(delta)))
            write_bytes(_file(folder), b"")
        else:
            drop_unfinished(_file(folder))
        _write_head(ledger)  # a process may have died between a line and its head
        if ledger.lines and (last := _time(ledger.lines[-1])) > _now() + SLACK:
            sentence = f"its last line is of {last}, which is yet to come; set the clock right"
            raise DeclinedError("ledger", f"{_file(folder)}: {sentence}")
        yield ledger


def read_ledger(folder: Path) -> Ledger | None:
    """Read and verify a ledger; None where there is none. A line that a killed process left unfinished is no charge.

    Raises ConfigError where lines are missing, changed or cannot be read.
    """
    file = _file(folder)
    if not begun(file):
        return None
    head = read_head(head_file(file))
    try:
        delta = float(head["delta"])
    except (KeyError, ValueError, TypeError, OverflowError):
        raise ConfigError(f"{folder}: head.json has no delta; put ledger.jsonl and head.json back") from None
    chain = read_chain(file, _root(delta), head)
    lines: list[Charge | Budget] = []
    for number, text in enumerate(chain.lines, start=1):
        try:
            read = parse(_Line, text)
            if (line := read.charge or read.budget) is None:
                raise ValueError("neither")
            _time(line)
        except ValueError:  # a ConfigError is one
            sentence = "is no charge with a time and its zone; put the ledger back from a copy"
            raise ConfigError(f"{file}: line {number} {sentence}") from None
        lines.append(line)
    return Ledger(folder, delta, lines, chain.head)


def check_no_budget(folder: Path, run_id: str) -> None:
    """Decline a request without privacy from a run that asked for a budget before: it keeps that.

    Raises DeclinedError: budget, or ledger where the ledger cannot be relied on.
    """
    try:
        ledger = read_ledger(folder)
    except ConfigError as error:
        raise DeclinedError("ledger", str(error)) from None
    if ledger is not None and (budget := ledger.budget(run_id)):
        sentence = f"privacy.epsilon={budget[0]:g} was asked for by this run before, and now no privacy for the site"
        raise DeclinedError("budget", f"{sentence}; it keeps the least")


def _write_head(ledger: Ledger) -> None:
    """Say how many lines there are, so that a cut-off end shows."""
    head: dict[str, Any] = {"lines": len(ledger.lines), "hash": ledger.head, "delta": ledger.delta}
    write_json(head_file(_file(ledger.folder)), head)


def _together(charges: list[Charge]) -> Spent:
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[charge.sigma, charge.rate] += charge.steps
    return [(sigma, rate, count) for (sigma, rate), count in steps.items()]


def _time(line: Charge | Budget) -> datetime:
    """When it was written. Raises ValueError where nobody can tell."""
    time = datetime.fromisoformat(line.time)
    if time.tzinfo is None:
        raise ValueError(f"time={line.time}: has no time zone")
    return time


def _file(folder: Path) -> Path:
    return folder / "ledger.jsonl"


def _root(delta: float) -> str:
    """What the first line follows: the whole chain hangs on delta."""
    return f"delta={delta!r}"


def _now() -> datetime:
    return datetime.now(UTC)
