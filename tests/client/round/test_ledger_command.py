"""gliofed-client ledger, as a hospital meets it."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from gliofed.client.cli import main
from gliofed.client.round.ledger import Charge, hold, read_ledger
from gliofed.client.round.ledger_command import _table
from gliofed.shared.accounting import prv_epsilon, rdp_epsilon

DELTA = 0.01
FIRST, SECOND = "0123456789abcdef0123", "fedcba9876543210fedc"
ROUND = Charge(what="train", run_id=FIRST, round=1, sigma=4.0, rate=1.0, steps=3, patients=10)
COUNT = replace(ROUND, what="count", sigma=10.0, steps=1, noisy=12)
CHARGES = (COUNT, ROUND, replace(ROUND, round=2), replace(ROUND, run_id=SECOND, sigma=5.5, patients=11))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A site's work folder, after two rounds of one run and one of another."""
    write(tmp_path / "work", *CHARGES)
    return tmp_path / "work"


def write(work: Path, *charges: Charge) -> None:
    with hold(work / "ledger", DELTA) as ledger:
        for charge in charges:
            ledger.charge(charge, None)


def ask(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "ledger", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_a_narrow_terminal_loses_no_digit(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In 40 columns an epsilon was shown as "7..."."""
    ledger = read_ledger(work / "ledger")
    assert ledger is not None
    Console(width=40).print(_table(ledger))
    assert "\N{HORIZONTAL ELLIPSIS}" not in capsys.readouterr().out


def test_the_table(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A row of a run has what that run alone would have spent; the sum is below theirs."""
    before = {path: path.read_bytes() for path in (work / "ledger").iterdir()}
    assert ask(monkeypatch, work) == 0
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    alone = [f"{rdp_epsilon([spent], DELTA):.3f}" for spent in ((4.0, 1.0, 6), (5.5, 1.0, 3), (10.0, 1.0, 1))]
    assert rows == [
        [FIRST[:12], "1-2", "2", "6", "4", "1", alone[0]],
        [SECOND[:12], "1", "1", "3", "5.5", "1", alone[1]],
        ["patients told", "1", "1", "1", "10", "1", alone[2]],
    ]
    ledger = read_ledger(work / "ledger")
    assert ledger is not None
    rdp, prv = ledger.epsilon(), prv_epsilon(ledger.spent, DELTA)
    assert prv < rdp < sum(map(float, alone))
    assert f"spent: epsilon {rdp:.3f} by RDP, {prv:.3f} by PRV, at delta=0.01" in shown
    assert "training patients: 11" in shown and f"last charge: {ledger.charges[-1].time}" in shown
    assert "private" not in shown
    assert {path: path.read_bytes() for path in (work / "ledger").iterdir()} == before


def test_json(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with hold(work / "ledger", DELTA) as ledger:
        ledger.keep_budget(FIRST, 8.0, None)
    with hold(work / "ledger", DELTA):  # a run that trains is not in the way
        assert ask(monkeypatch, work / "ledger", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "delta": DELTA,
        "epsilon_rdp": ledger.epsilon(),
        "epsilon_prv": prv_epsilon(ledger.spent, DELTA),
        "private": True,
        "budgets": [{"run_id": FIRST, "epsilon": 8.0, "delta": DELTA, "time": ledger.lines[-1].time}],
        "charges": [asdict(charge) for charge in ledger.charges],
    }
    assert [charge["noisy"] for charge in found["charges"]] == [12, None, None, None]


def test_test_mode_says_that_no_epsilon_holds(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, replace(ROUND, run_id="test-run", private=False))
    assert ask(monkeypatch, work) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if "test-run" in line)
    assert "not private" in row
    assert sum("not private" in line for line in shown.splitlines()) == 2
    assert "no epsilon holds" in shown
    assert ask(monkeypatch, work, "--json") == 0
    assert json.loads(capsys.readouterr().out)["private"] is False


def test_a_ledger_without_charges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    assert ask(monkeypatch, tmp_path) == 0
    assert "nothing was charged yet" in capsys.readouterr().out
    assert ask(monkeypatch, tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "delta": DELTA,
        "epsilon_rdp": 0.0,
        "epsilon_prv": 0.0,
        "private": True,
        "budgets": [],
        "charges": [],
    }


def test_no_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for work in (tmp_path, tmp_path / "none"):
        assert ask(monkeypatch, work) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and f"{work}: no ledger there" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_damaged_ledger(
    work: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No number of a ledger that cannot be relied on is shown."""
    file = work / "ledger" / "ledger.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"steps": 3', b'"steps": 2'))
    assert ask(monkeypatch, work, *words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and f"{file}: line 3 does not follow" in said.err


def test_a_charge_between_the_two_files_is_no_damage(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No lock is taken: head.json may be read before a charge, and the lines after it."""
    file, original = work / "ledger" / "head.json", Path.read_text
    late = iter([True])

    def read_text(path: Path, *more: str) -> str:
        text = original(path, *more)
        if path == file and next(late, False):
            write(work, replace(ROUND, round=3))
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    assert ask(monkeypatch, work, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["charges"]) == len(CHARGES) + 1


@pytest.mark.parametrize("words", [(), ("a", "b"), ("a", "--yaml")])
def test_wrong_use(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(monkeypatch, *words) == 2
    assert "gliofed-client ledger" in capsys.readouterr().err
