"""gliofed-server report, on a run that is done, that failed, and that is not there."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from run_events import counted, event, run

from gliofed.server.cli import main
from gliofed.server.report.record import read_record
from gliofed.server.round.history import History, site_line
from gliofed.shared.messages import CODES


def report(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["gliofed-server", "report", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize("sites", [2, 30])
def test_rounds_and_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sites: int
) -> None:
    """With 30 sites a column for each would fit on no screen."""
    lines = {f"s{n}": site_line(status="counted", evaluate={"dice": 0.25}) for n in range(1, sites)}
    lines["s0"] = site_line(status="refused", reason="not finite: w")
    history = History(tmp_path / "history.jsonl")
    history.append({"event": "round", "round": 1, "seconds": 2.0, "sites": lines, "global": {"dice": 0.75}})
    assert report(monkeypatch, str(tmp_path)) == 0
    shown = capsys.readouterr().out
    for word in ("0.250", "0.750", "s0 refused: not finite: w", "status: not ended"):
        assert word in shown
    assert report(monkeypatch, str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out) == history.events()


@pytest.mark.slow
def test_a_copied_history_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into its folder or another; and several runs together, called after their folders."""
    for name in ("seed=0", "seed=1"):
        (tmp_path / name).mkdir()
        for line in run(1):
            History(tmp_path / name / "history.jsonl").append(line)
    first, second, together = (str(tmp_path / name) for name in ("seed=0", "seed=1", "together"))
    assert report(monkeypatch, first, "--plots") == 0
    drawn = ["curves", "by_site", "participation", "weights", "traffic"]
    assert f"drawn in {first}/plots: {', '.join(drawn)}\n" in capsys.readouterr().out
    assert {path.stem for path in (tmp_path / "seed=0" / "plots").iterdir()} == {*drawn}
    assert report(monkeypatch, first, second, "--plots", together) == 0
    assert capsys.readouterr().out == f"drawn in {together}: losses, dice\n"
    assert ">mean of 2 seeds<" in (tmp_path / "together" / "dice.svg").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("one", "two"), "two: a second run; several are drawn together, so give --plots DIR as well"),
        (("one", "two", "--plots"), "two: a second run; several are drawn together, so give --plots DIR as well"),
        (("one", "two", "--json", "--plots", "x"), "two: a second run; --json shows one, so drop it"),
        (("one", "one", "--plots", "x"), "one: not the only run of that name; name their folders differently"),
        (("one", "two", "--plots", "x"), "one: not of the same task as the others (accuracy, dice)"),
        (("one", "--plots", "one/history.jsonl"), "one/history.jsonl: File exists; give a folder"),
        (("damaged", "--plots"), "run.json: is damaged; put it back from a copy, or remove it"),
        (("two",), "comparison.json: is damaged; put it back from a copy, or remove it"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, metric in {"one": "dice", "two": "accuracy", "damaged": "dice"}.items():
        line = event(1, {"a": counted(1.0, evaluate={metric: 0.5})}, {metric: 0.5})
        (tmp_path / name).mkdir()
        History(tmp_path / name / "history.jsonl").append(line)
    (tmp_path / "damaged" / "run.json").write_text("{")
    (tmp_path / "two" / "comparison.json").write_text("{")
    assert report(monkeypatch, *words) == 2
    assert says in capsys.readouterr().err


def test_what_a_folder_says_of_its_run_is_in_the_figures(tmp_path: Path) -> None:
    """Made-up data are called so, and the budget is that of the run; a copy of the history alone knows neither."""
    copy = read_record(tmp_path)
    assert (copy.name, copy.metric, copy.note, copy.budget, copy.comparison) == (tmp_path.name, "dice", "", None, None)
    facts = {"run": {"privacy": {"mechanism": "dp_sgd", "epsilon": 3.0}}, "simulation": {"data": {"source": "phantom"}}}
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "comparison.json").write_text('{"metric": "dice"}')
    whole = read_record(tmp_path)
    assert (whole.note, whole.budget, whole.comparison) == ("synthetic data", 3.0, {"metric": "dice"})


def test_an_end_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last rows of the table alone do not say that the run will not go on."""
    line = site_line(status="declined", reason=CODES["budget"])
    history = History(tmp_path / "history.jsonl")
    history.append({"event": "round_failed", "round": 3, "seconds": 2.0, "sites": {"a": line}, "reason": "x"})
    history.append({"event": "end", "status": "incomplete", "reason": "round 3: spent"})
    assert report(monkeypatch, str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert f"round 3: a declined: {CODES['budget']}\nstatus: incomplete: round 3: spent\n" in shown


def test_a_reason_that_stays_the_same_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A site that leaves out cases does so in each round; a long run would bury everything else."""
    history, line = History(tmp_path / "history.jsonl"), site_line(status="counted", reason="left out: 5 label_values")
    for number in (1, 2, 3, 5):
        history.append({"event": "round", "round": number, "seconds": 2.0, "sites": {"a": line}, "global": None})
    assert report(monkeypatch, str(tmp_path)) == 0
    assert "rounds 1-3, 5: a counted, but left out: 5 label_values\nstatus" in capsys.readouterr().out


def test_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(monkeypatch, str(tmp_path)) == 2
    assert "history.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["report"], ["audit", "verify"]], ids=" ".join)
def test_a_folder_that_may_not_be_entered_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """A run's folder is the service user's alone, and its operator may be another one."""

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sys, "argv", ["gliofed-server", *words, str(tmp_path)])
    with monkeypatch.context() as closed, pytest.raises(SystemExit) as end:
        closed.setattr(Path, "stat", refuse)  # a test may run as root, whom no rights stop
        main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gliofed-server: {tmp_path}") and said.endswith(": Permission denied\n")


def test_what_it_writes_is_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Updates and logs lie in runs/ and link/, and a login gives most people a umask of 022."""
    before = os.umask(0o022)
    try:
        report(monkeypatch, str(tmp_path))
        (tmp_path / "file").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_hospitals_words_are_no_command_for_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {"a": site_line(status="refused", reason="codec=[/x]\x1b[2K")}
    event = {"event": "round", "round": 1, "seconds": 2.0, "sites": lines, "global": None}
    History(tmp_path / "history.jsonl").append(event)
    assert report(monkeypatch, str(tmp_path)) == 0
    assert "a refused: codec=[/x]\\x1b[2K\n" in capsys.readouterr().out
