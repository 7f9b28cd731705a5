"""What gliofed-server status and logs show, with and without a server that runs."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_federation import provisioned, rewrite
from small_federation import status as exit_status
from telephone import admit_told

import gliofed.server.link.online
from gliofed.client.link.join import join
from gliofed.server.cli import main
from gliofed.server.link.control import key_bytes
from gliofed.server.link.logs import logs, stop
from gliofed.server.link.online import read_online, write_online
from gliofed.server.link.proxy import ACCESS_LOG, logged_key
from gliofed.server.link.runs import Run, Submission, new_run
from gliofed.server.link.start import only_one
from gliofed.server.link.status import status
from gliofed.server.link.status_command import show
from gliofed.server.provisioning.admit import expel
from gliofed.server.round.audit import hold_audit
from gliofed.server.round.history import History
from gliofed.server.round.progress import RoundProgress
from gliofed.shared.checkpoint import save_checkpoint
from gliofed.shared.config import RunConfig
from gliofed.shared.keys import new_key, read_public
from gliofed.shared.parse import ConfigError


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation with both hospitals admitted, one of them expelled since."""
    root = tmp_path_factory.mktemp("federation")
    folder = provisioned(root)
    for site in ("hospital-a", "hospital-b"):
        join(folder / "kits" / f"{site}.zip", root / site, patients=100)
        admit_told(root / site / f"{site}.request.json", folder)
    expel("hospital-b", folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Iterator[Path]:
    """As if `start` ran, where a test writes what that knows."""
    place = Path(shutil.copytree(original, tmp_path / "study"))
    with only_one(place):
        yield place


@pytest.fixture
def run(folder: Path, run_config: Callable[..., RunConfig]) -> Run:
    return new_run(folder, "one", run_config(), [], b"code")


def line(status: str, **known: object) -> dict[str, object]:
    return {"status": status, "reason": None, "patients": None, **known}


def test_without_a_server_it_says_so(folder: Path) -> None:
    found = status(folder)
    assert not found.started
    assert [(site.name, site.membership, site.connected) for site in found.sites] == [
        ("hospital-a", "admitted", None),
        ("hospital-b", "expelled", None),
    ]
    console = Console(record=True, width=120)
    show(found, False, console)
    assert "gliofed-server start does not run" in console.export_text()


def test_what_the_server_knows_is_shown_while_it_is_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was killed leaves its last words behind; they say nothing of now."""
    about = {"node": 1, "online": True, "seen": "2026-01-02T03:04:05+00:00"}
    known = {"programs": {"superlink": True, "nginx": False}, "sites": {"hospital-a": about}, "trouble": "a fault"}
    write_online(folder, known)
    found = status(folder)
    assert (found.started, found.programs, found.warnings) == (True, known["programs"], ["a fault"])
    assert [site.connected for site in found.sites] == [True, False]
    monkeypatch.setattr(gliofed.server.link.online, "OLDEST", -1.0)
    assert not status(folder).started


def test_the_agreed_numbers_are_shown_and_a_missing_one_has_a_cure(folder: Path) -> None:
    """A site that an older version admitted goes on."""
    assert [site.agreed for site in status(folder).sites] == [100, 100]
    rewrite(folder / "sites/hospital-a/site.json", patients=None)
    rewrite(folder / "sites/hospital-b/site.json", patients=None)  # expelled, so nobody need agree
    found = status(folder)
    assert [(site.membership, site.agreed) for site in found.sites] == [("admitted", None), ("expelled", None)]
    (warning,) = found.warnings
    assert warning.startswith("hospital-a: no number of patients is agreed")
    assert "gliofed-server admit hospital-a.request.json --patients N" in warning


def test_a_start_that_was_killed_runs_no_more(folder: Path) -> None:
    """Its programs read "runs" for a minute more."""
    known = {"programs": {"superlink": True}, "sites": {}, "trouble": None}
    write_online(folder, known)
    assert status(folder).started
    other = Path(shutil.copytree(folder, folder.parent / "nobody-holds"))
    assert not status(other).started


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"time": "x"}', "nonsense"])
def test_words_that_cannot_be_read_are_none(folder: Path, text: str) -> None:
    write_online(folder, {})
    (folder / "link" / "state.json").write_text(text)
    assert read_online(folder) is None


def test_a_site_shows_its_last_round_and_what_it_told_before(folder: Path, run: Run) -> None:
    """A round that a site missed has no number of patients, and spends nothing."""
    history = History(run.folder / "history.jsonl")
    first = {"hospital-a": line("counted", patients=7, epsilon=1.5), "hospital-b": line("counted", patients=2)}
    second = {"hospital-a": line("missing", reason="not connected"), "hospital-b": line("counted", patients=3)}
    history.append({"event": "round", "round": 1, "sites": first, "global": {"dice": 0.5}})
    history.append({"event": "round", "round": 2, "sites": second, "global": None})
    found = status(folder)
    a, b = found.sites
    assert (a.patients, a.epsilon, a.round, a.reason) == (7, 1.5, "missing", "not connected")
    assert (b.patients, b.epsilon, b.round) == (3, None, "counted")
    (one,) = found.runs
    assert (one.name, one.state, one.round, one.rounds, one.metric, one.value) == ("one", "waiting", 2, 2, "dice", 0.5)


def test_few_patients_behind_a_score_are_counted(folder: Path, run: Run) -> None:
    measured = {"hospital-a": line("counted", evaluate={"dice": 1.0}, evaluated=1)}
    event = {"event": "round", "round": 1, "sites": measured, "global": {"dice": 1.0}}
    History(run.folder / "history.jsonl").append(event)
    found, console = status(folder), Console(record=True, width=120)
    show(found, False, console)
    assert found.runs[0].patients == 1 and "dice 1.000 (n=1)" in console.export_text()


def test_a_bound_that_a_site_met_is_named(folder: Path, run: Run) -> None:
    """It counted, so nothing else would say that it claimed a billion patients."""
    claim = line("counted", patients=12, claimed=10**9, size=1.0, share=0.5, share_before=0.9)
    event = {"event": "round", "round": 1, "global": None, "sites": {"hospital-a": claim}}
    History(run.folder / "history.jsonl").append(event)
    row, _ = status(folder).sites
    assert row.reason == "claimed 1000000000 patients, counted as 12; share lowered from 0.90 to 0.50"


def test_the_newest_round_is_that_of_the_run_that_was_written_last(
    folder: Path, run: Run, run_config: Callable[..., RunConfig]
) -> None:
    """A later run may be trained, and why nobody counted in it be seen, while an earlier one is stopped."""
    later = new_run(folder, "two", run_config(), [], b"code")
    for number, (each, site) in enumerate(
        {run: line("counted"), later: line("declined", reason="not approved")}.items()
    ):
        History(each.folder / "history.jsonl").append(
            {"event": "round_failed", "round": 1, "sites": {"hospital-a": site}}
        )
        os.utime(each.folder / "history.jsonl", (number, number))
    run.want("stop")
    found = status(folder)
    assert [each.name for each in found.runs] == ["one", "two"]
    assert found.sites[0].reason == "not approved"


def test_json_is_one_object(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show(status(folder), True)
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


def test_stop_takes_the_run_that_goes_on(folder: Path, run: Run) -> None:
    assert stop(folder, None)[0].startswith("one: will stop")
    assert run.wanted().wanted == "stop"
    with pytest.raises(ConfigError, match="no run waits or runs"):
        stop(folder, None)
    with pytest.raises(ConfigError, match="one: it is stopped"):
        stop(folder, "one")


def test_a_log_is_followed_until_the_run_is_over(folder: Path, run: Run) -> None:
    """Whole lines, without what a terminal would obey."""
    said: list[str] = []
    run.files.log.write_text("first\n\x1b[92mINFO\x1b[0m second \x1b]0;x\x07\nhal")

    def sleep(seconds: float) -> None:
        with run.files.log.open("a") as log:
            log.write("f\nlast\n")
        run.want("stop")

    logs(folder, "one", True, said.append, sleep)
    assert said == ["first", "INFO second \\x1b]0;x\\x07", "half", "last"]


def test_without_a_name_the_links_logs_are_shown(folder: Path) -> None:
    said: list[str] = []
    with pytest.raises(ConfigError, match="no logs yet, since gliofed-server start has not run"):
        logs(folder, None, False, said.append)
    (folder / "link").mkdir(exist_ok=True)
    (folder / "link" / "nginx.log").write_text("\n".join(map(str, range(100))))
    logs(folder, None, False, said.append)
    assert said[0].startswith("== ")
    assert said[1:] == [str(number) for number in range(60, 100)]


def test_the_access_log_is_shown_with_names(folder: Path) -> None:
    """Also of a site that was expelled: what its key did before stays of interest."""
    keys = [read_public((folder / "sites" / site / "key.pub").read_text(), "") for site in ("hospital-a", "hospital-b")]
    keys.append(new_key().public_key())
    (folder / "sites" / "hospital-c").mkdir()
    (folder / "sites" / "hospital-c" / "key.pub").write_text("damaged")
    (folder / "link").mkdir(exist_ok=True)
    logged = "".join(f"2027-01-01T00:00:00+00:00 10.1.2.3 {logged_key(key_bytes(key))} x\n" for key in keys)
    (folder / "link" / ACCESS_LOG).write_text(logged)
    said: list[str] = []
    logs(folder, None, False, said.append)
    assert [line.split()[2] for line in said[1:]] == ["hospital-a", "hospital-b", logged_key(key_bytes(keys[2]))]


def test_a_hospitals_words_are_no_markup_and_no_command(folder: Path, run: Run) -> None:
    """A closing tag ended `status` with an error, and a control sequence could hide lines."""
    hostile = line("refused", reason="codec=[/x][red]\x1b[2K: unknown")
    event = {"event": "round", "round": 1, "sites": {"hospital-a": hostile}, "global": None}
    History(run.folder / "history.jsonl").append(event)
    write_online(folder, {"programs": {}, "sites": {}, "trouble": "[/y]\x07"})
    console = Console(record=True, width=300)
    show(status(folder), False, console)
    shown = console.export_text()
    assert "refused: codec=[/x][red]\\x1b[2K: unknown" in shown
    assert "[/y]\\x07" in shown
    assert not set("\x1b\x07") & set(shown)


@pytest.mark.parametrize("file", ["site.json", "key.pub"])
def test_a_damaged_record_of_a_site_hides_no_other(folder: Path, run: Run, file: str) -> None:
    record = folder / "sites/hospital-a" / file
    record.write_text("{half")
    found = status(folder)
    assert [(site.name, site.membership) for site in found.sites] == [
        ("hospital-a", "damaged"),
        ("hospital-b", "expelled"),
    ]
    assert len(found.runs) == 1
    (warning,) = found.warnings
    assert str(record) in warning
    write_online(folder, {"programs": {}, "sites": {}, "trouble": f"a fault; {warning}"})
    assert status(folder).warnings == [f"a fault; {warning}"]  # said once


def test_a_finished_run_of_an_older_version_is_whole(folder: Path, run: Run) -> None:
    """Its configuration had other fields, which none but its own version can read."""
    saved = json.loads((run.folder / "run.json").read_text())
    saved["run"]["gate"] = saved["run"].pop("fold")
    (run.folder / "run.json").write_text(json.dumps(saved))
    event = {"event": "round", "round": 1, "global": {"dice": 0.5}, "sites": {}}
    for each in (event, {"event": "end", "status": "done"}):
        History(run.folder / "history.jsonl").append(each)
    (found,) = status(folder).runs
    assert (found.state, found.round, found.rounds, found.value) == ("done", 1, saved["run"]["rounds"], 0.5)


def shown(folder: Path, width: int = 80) -> str:
    console = Console(record=True, width=width)
    show(status(folder), False, console)
    return console.export_text()


def test_where_a_round_stands_and_about_how_long_it_takes(folder: Path, run: Run) -> None:
    """By the rounds before: two of 40 s; of the second of two rounds 10 s are gone."""
    event = {"event": "round", "round": 1, "seconds": 40.0, "sites": {}, "global": {"dice": 0.5}}
    History(run.folder / "history.jsonl").append(event)
    with hold_audit(run.folder), RoundProgress(2, run.files.progress) as progress:
        progress.start(2, 2, trained=["hospital-c"])
        progress.enter(2, "training", ["hospital-a", "hospital-b"])
        progress.answer("hospital-b", "declined")
        began = datetime.now(UTC) - timedelta(seconds=10)
        rewrite(run.files.progress, began=began.isoformat())
        found = status(folder)
        (one,) = found.runs
        assert one.now is not None and (one.now.round, one.now.phase) == (2, "training")
        assert [site.doing for site in found.sites] == ["training", None]
        assert one.seconds_left is not None and 20 < one.seconds_left <= 30
        text = shown(folder)
        assert "one: round 2, training since " in text
        assert "; at work: hospital-a; answered: hospital-b declined, hospital-c trained; about " in text
        rewrite(run.files.progress, began=(began - timedelta(hours=1)).isoformat())
        assert status(folder).runs[0].seconds_left == 0.0  # longer than the rounds before
        (run.files.progress).write_text("{half")
        assert status(folder).runs[0].now is None
    assert not (run.files.progress).exists()  # nobody takes it for the round of today


def test_after_a_kill_it_says_what_is_true(folder: Path, run: Run) -> None:
    """A killed server leaves its progress; nobody is at work, though Flower takes two minutes to notice."""
    write_online(folder, {"programs": {}, "sites": {}, "trouble": None})
    since = run.wanted().since
    run.submitted(Submission(since=since, flower=1, tries=1))
    assert status(folder).runs[0].reason == "its server starts"
    RoundProgress(2, run.files.progress).enter(1, "training", ["hospital-a"])
    found = status(folder)
    assert "its server was killed" in str(found.runs[0].reason)
    assert (found.runs[0].now, found.sites[0].doing) == (None, None)
    run.submitted(Submission(since=since, tries=1))
    assert "its server ended" in str(status(folder).runs[0].reason)
    with hold_audit(run.folder):  # it is back
        assert status(folder).runs[0].reason is None


def test_no_cell_is_cut_at_80_columns(folder: Path, run_config: Callable[..., RunConfig]) -> None:
    """Headings read "membe…" and names lost their end; the longest name goes on in the next line."""
    name = "hospital-of-the-longest-name-that-a-folder-may-have-in-all-64-ab"
    new_run(folder, name, run_config(), [], b"code")
    shutil.copytree(folder / "sites/hospital-a", folder / f"sites/{name}")
    event = {"event": "round", "round": 1, "seconds": 1.0, "global": {"dice": 0.5}}
    event["sites"] = {name: line("not_invited", patients=12345, epsilon=123.456)}
    History(folder / f"runs/{name}/history.jsonl").append(event)
    seen = {"node": 1, "online": False, "seen": "2026-01-02T03:04:05+00:00"}
    write_online(folder, {"programs": {}, "sites": {name: seen}, "trouble": None})
    text = shown(folder)
    assert "…" not in text
    for words in ("site ", "last seen", "patients", "last round", "epsilon", "not_invited", "12345 of 100", "123.456"):
        assert words in text
    first = [row.split(" ")[0] for row in text.splitlines()]
    assert "".join(first).count(name) >= 2  # of the site and of the run, folded


@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "optimizer.safetensors", "code", "audit"])
def test_what_a_server_goes_on_from_is_looked_at(folder: Path, run: Run, file: str) -> None:
    """Its server ended over it ten times, while status said "waiting"."""
    checkpoints = run.folder / "checkpoints"
    save_checkpoint(checkpoints, 1, {"model": {"w": torch.ones(100)}, "optimizer": {}}, {"round": 1})
    with hold_audit(run.folder) as audit:
        audit.began("start", "r", "h")
    assert status(folder).runs[0].state == "waiting"
    own = {"code": run.folder / "code.fab", "audit": run.folder / "audit/audit.jsonl"}
    damaged = own.get(file, checkpoints / "round-0001" / file)
    damaged.write_bytes(damaged.read_bytes()[:-5] if file != "audit" else b"nonsense\n")
    (found,) = status(folder).runs
    assert found.state == "damaged"
    assert ("round-0001" if file not in own else damaged.name) in str(found.reason)


@pytest.mark.parametrize("file", ["run.json", "wanted.json", "history.jsonl"])
def test_a_damaged_file_of_a_run_hides_no_other(
    folder: Path, run: Run, run_config: Callable[..., RunConfig], file: str
) -> None:
    new_run(folder, "other", run_config(), [], b"code")
    (run.folder / file).write_text("{half\n")
    found = {each.name: each for each in status(folder).runs}
    assert found["one"].state == "damaged"
    assert file in str(found["one"].reason)
    assert found["other"].state == "waiting"
    stop(folder, None)
