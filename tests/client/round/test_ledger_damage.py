"""The hospital's ledger: whatever was changed in its files is seen, and left as it is."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from ledger_lines import COUNT, DELTA, ROUND, contents, epsilon_of, together, write

import gliofed.client.round.ledger
from gliofed.client.round.ledger import hold, read_ledger
from gliofed.client.round.policy import DeclinedError
from gliofed.shared.parse import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    """Change the lines of ledger.jsonl."""

    def apply(folder: Path) -> None:
        file = folder / "ledger.jsonl"
        file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))

    return apply


def both(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def head(**values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "head.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


JUNK = bytes(range(256)) * 8
DAMAGE: dict[str, Callable[[Path], object]] = {
    "a changed digit": lines(lambda of: [of[0], of[1].replace(b'"steps": 3', b'"steps": 1'), of[2]]),
    "a changed digit in the last line": lines(lambda of: [*of[:2], of[2].replace(b'"steps": 3', b'"steps": 1')]),
    "a changed time": lines(lambda of: [of[0].replace(b'"time": "2', b'"time": "1'), *of[1:]]),
    "a removed line": lines(lambda of: [of[0], of[2]]),
    "a removed first line": lines(lambda of: of[1:]),
    "a removed last line": lines(lambda of: of[:2]),
    "swapped lines": lines(lambda of: [of[1], of[0], of[2]]),
    "a line twice": lines(lambda of: [*of, of[2]]),
    "a line that is no charge": lines(lambda of: [*of, b"{}\n"]),
    "an empty line": lines(lambda of: [of[0], b"\n", *of[1:]]),
    "no end of the last line": lines(lambda of: [*of[:2], of[2].rstrip(b"\n")]),
    "an empty file": both("ledger.jsonl", b""),
    "binary junk": both("ledger.jsonl", JUNK),
    "junk of zeros, as after a power cut": both("ledger.jsonl", b"\0" * 500 + b"\n"),
    "an empty head": both("head.json", b""),
    "a head of binary junk": both("head.json", JUNK),
    "a head that is a list": both("head.json", b"[1, 2]"),
    "a head with too large a number": head(lines=10**400),
    "a head with fewer lines": head(lines=2),
    "a head with more lines": head(lines=4),
    "a head with less than no lines": head(lines=-1),
    "a head with another delta": head(delta=0.5),
    "no head": lambda folder: (folder / "head.json").unlink(),
    "no ledger": lambda folder: (folder / "ledger.jsonl").unlink(),
    "a folder in its place": lambda folder: ((folder / "ledger.jsonl").unlink(), (folder / "ledger.jsonl").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_seen_and_left_as_it_is(folder: Path, damage: str) -> None:
    """A ledger that cannot be relied on trains nothing: a sentence says which file, and nobody mends it by guessing."""
    write(folder, COUNT, ROUND, replace(ROUND, round=2))
    DAMAGE[damage](folder)
    before = contents(folder) if damage != "a folder in its place" else None
    with pytest.raises(ConfigError, match="ledger") as unread:
        read_ledger(folder)
    with pytest.raises(DeclinedError) as refused, hold(folder, DELTA):
        pass
    assert refused.value.code == "ledger"
    assert str(refused.value) == str(unread.value)
    assert str(folder) in str(unread.value) and "\n" not in str(unread.value)
    assert before is None or contents(folder) == before


@pytest.mark.parametrize("text", [b'{"lines": Infinity, "hash": "", "delta": 0.1}', b"[" * 100_000])
def test_a_head_that_breaks_a_parser(folder: Path, text: bytes) -> None:
    write(folder, ROUND)
    (folder / "head.json").write_bytes(text)
    with pytest.raises(ConfigError):
        read_ledger(folder)


def test_half_a_line_is_no_charge(folder: Path) -> None:
    """It was being written when the process died, so nothing had been trained for it; the next holder drops it."""
    write(folder, COUNT, ROUND)
    before, epsilon = contents(folder), epsilon_of(folder)
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"before": "12')
    assert epsilon_of(folder) == epsilon
    with hold(folder, DELTA) as ledger:
        assert ledger.charges[1] == replace(ROUND, time=ledger.charges[1].time)
        assert contents(folder) == before
    write(folder, ROUND)
    assert epsilon_of(folder) > epsilon


def test_the_line_before_a_lost_head_counts(folder: Path) -> None:
    """A process that died between the two files may have trained nothing; the charge is kept all the same."""
    write(folder, ROUND)
    older = (folder / "head.json").read_bytes()
    write(folder, replace(ROUND, round=2))
    newer = (folder / "head.json").read_bytes()
    (folder / "head.json").write_bytes(older)
    assert epsilon_of(folder) == together([ROUND, ROUND])
    with hold(folder, DELTA):
        assert (folder / "head.json").read_bytes() == newer


@pytest.mark.parametrize("time", ["", "yesterday", "2026-10-25T02:30:00", "2026-13-01T00:00:00+00:00"])
@pytest.mark.parametrize("vouched", [False, True])
def test_a_time_that_cannot_be_compared(folder: Path, time: str, vouched: bool) -> None:
    """No head.json vouches yet for a line that came after it, and its chain says nothing of what is in it."""
    write(folder, ROUND)
    file = folder / "ledger.jsonl"
    line = json.loads(file.read_text())
    line["before"] = sha256(file.read_bytes().rstrip(b"\n")).hexdigest()
    line["charge"]["time"] = time
    with file.open("a") as ledger:
        ledger.write(json.dumps(line, sort_keys=True) + "\n")
    if vouched:  # and head.json was forged with it
        head(lines=2, hash=sha256(json.dumps(line, sort_keys=True).encode()).hexdigest())(folder)
    with pytest.raises(ConfigError, match=r"line 2 is no charge with a time and its zone; put") as unread:
        read_ledger(folder)
    with pytest.raises(DeclinedError) as refused, hold(folder, DELTA):
        pass
    assert refused.value.code == "ledger" and str(refused.value) == str(unread.value)


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(gliofed.client.round.ledger, "_now", lambda: datetime.now(UTC) + ahead)
        yield


def test_a_clock_that_was_set_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last charge would be of tomorrow: perhaps an older machine's state came back, and with it an older ledger."""
    write(folder, ROUND)
    before = contents(folder)
    with clock(monkeypatch, -timedelta(days=1)):
        with pytest.raises(DeclinedError, match="clock") as refused, hold(folder, DELTA):
            pass
        assert refused.value.code == "ledger" and str(folder / "ledger.jsonl") in str(refused.value)
    assert contents(folder) == before
    with clock(monkeypatch, -timedelta(minutes=1)):  # a time server may
        write(folder, replace(ROUND, round=2))
    with clock(monkeypatch, timedelta(days=1)):
        write(folder, replace(ROUND, round=3))
