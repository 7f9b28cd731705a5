"""What gliofed-server status and logs show, with and without a server that runs."""

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from small_federation import rewrite
from small_federation import status as exit_status
from watched_federation import line

import gliofed.server.link.online
from gliofed.server.cli import main
from gliofed.server.link.online import read_online, write_online
from gliofed.server.link.runs import Run
from gliofed.server.link.status import status
from gliofed.server.link.status_command import show
from gliofed.server.round.history import History


def test_without_a_server_it_says_so(watched: Path) -> None:
    found = status(watched)
    assert not found.started
    assert [(site.name, site.membership, site.connected) for site in found.sites] == [
        ("hospital-a", "admitted", None),
        ("hospital-b", "expelled", None),
    ]
    console = Console(record=True, width=120)
    show(found, False, console)
    assert "gliofed-server start does not run" in console.export_text()


def test_what_the_server_knows_is_shown_while_it_is_new(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was killed leaves its last words behind; they say nothing of now."""
    about = {"node": 1, "online": True, "seen": "2026-01-02T03:04:05+00:00"}
    known = {"programs": {"superlink": True, "nginx": False}, "sites": {"hospital-a": about}, "trouble": "a fault"}
    write_online(watched, known)
    found = status(watched)
    assert (found.started, found.programs, found.warnings) == (True, known["programs"], ["a fault"])
    assert [site.connected for site in found.sites] == [True, False]
    monkeypatch.setattr(gliofed.server.link.online, "OLDEST", -1.0)
    assert not status(watched).started


def test_the_agreed_numbers_are_shown_and_a_missing_one_has_a_cure(watched: Path) -> None:
    """A site that an older version admitted goes on."""
    assert [site.agreed for site in status(watched).sites] == [100, 100]
    rewrite(watched / "sites/hospital-a/site.json", patients=None)
    rewrite(watched / "sites/hospital-b/site.json", patients=None)  # expelled, so nobody need agree
    found = status(watched)
    assert [(site.membership, site.agreed) for site in found.sites] == [("admitted", None), ("expelled", None)]
    (warning,) = found.warnings
    assert warning.startswith("hospital-a: no number of patients is agreed")
    assert "gliofed-server admit hospital-a.request.json --patients N" in warning


def test_a_start_that_was_killed_runs_no_more(watched: Path) -> None:
    """Its programs read "runs" for a minute more."""
    known = {"programs": {"superlink": True}, "sites": {}, "trouble": None}
    write_online(watched, known)
    assert status(watched).started
    other = Path(shutil.copytree(watched, watched.parent / "nobody-holds"))
    assert not status(other).started


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"time": "x"}', "nonsense"])
def test_words_that_cannot_be_read_are_none(watched: Path, text: str) -> None:
    write_online(watched, {})
    (watched / "link" / "state.json").write_text(text)
    assert read_online(watched) is None


def test_json_is_one_object(watched: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show(status(watched), True)
    found = json.loads(capsys.readouterr().out)
    assert {"federation", "started", "programs", "sites", "runs", "warnings"} == found.keys()
    assert found["runs"][0]["state"] == "waiting"


@pytest.mark.parametrize(
    "words", [["status", "nowhere"], ["start", "nowhere"], ["stop"], ["logs", "one"], ["run", "federation=nowhere"]]
)
def test_a_wrong_folder_is_one_sentence_with_status_2(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_status(monkeypatch, main, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("gliofed-server: ")
    assert "provision" in said
    assert said.count("\n") == 1


def test_a_hospitals_words_are_no_markup_and_no_command(watched: Path, run: Run) -> None:
    """A closing tag ended `status` with an error, and a control sequence could hide lines."""
    hostile = line("refused", reason="codec=[/x][red]\x1b[2K: unknown")
    event = {"event": "round", "round": 1, "sites": {"hospital-a": hostile}, "global": None}
    History(run.folder / "history.jsonl").append(event)
    write_online(watched, {"programs": {}, "sites": {}, "trouble": "[/y]\x07"})
    console = Console(record=True, width=300)
    show(status(watched), False, console)
    shown = console.export_text()
    assert "refused: codec=[/x][red]\\x1b[2K: unknown" in shown
    assert "[/y]\\x07" in shown
    assert not set("\x1b\x07") & set(shown)


@pytest.mark.parametrize("file", ["site.json", "key.pub"])
def test_a_damaged_record_of_a_site_hides_no_other(watched: Path, run: Run, file: str) -> None:
    record = watched / "sites/hospital-a" / file
    record.write_text("{half")
    found = status(watched)
    assert [(site.name, site.membership) for site in found.sites] == [
        ("hospital-a", "damaged"),
        ("hospital-b", "expelled"),
    ]
    assert len(found.runs) == 1
    (warning,) = found.warnings
    assert str(record) in warning
    write_online(watched, {"programs": {}, "sites": {}, "trouble": f"a fault; {warning}"})
    assert status(watched).warnings == [f"a fault; {warning}"]  # said once
