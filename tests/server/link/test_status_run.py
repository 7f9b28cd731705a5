"""What gliofed-server status shows of a run: its sites, where a round stands, and what is left after a kill."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_federation import rewrite
from watched_federation import line, shown

from gliofed.server.link.logs import stop
from gliofed.server.link.online import write_online
from gliofed.server.link.runs import Run, Submission, new_run
from gliofed.server.link.status import status
from gliofed.server.link.status_command import show
from gliofed.server.round.audit import hold_audit
from gliofed.server.round.history import History
from gliofed.server.round.progress import RoundProgress
from gliofed.shared.checkpoint import save_checkpoint
from gliofed.shared.config import RunConfig


def test_a_site_shows_its_last_round_and_what_it_told_before(watched: Path, run: Run) -> None:
    """A round that a site missed has no number of patients, and spends nothing."""
    history = History(run.folder / "history.jsonl")
    first = {"hospital-a": line("counted", patients=7, epsilon=1.5), "hospital-b": line("counted", patients=2)}
    second = {"hospital-a": line("missing", reason="not connected"), "hospital-b": line("counted", patients=3)}
    history.append({"event": "round", "round": 1, "sites": first, "global": {"dice": 0.5}})
    history.append({"event": "round", "round": 2, "sites": second, "global": None})
    found = status(watched)
    a, b = found.sites
    assert (a.patients, a.epsilon, a.round, a.reason) == (7, 1.5, "missing", "not connected")
    assert (b.patients, b.epsilon, b.round) == (3, None, "counted")
    (one,) = found.runs
    assert (one.name, one.state, one.round, one.rounds, one.metric, one.value) == ("one", "waiting", 2, 2, "dice", 0.5)


def test_few_patients_behind_a_score_are_counted(watched: Path, run: Run) -> None:
    measured = {"hospital-a": line("counted", evaluate={"dice": 1.0}, evaluated=1)}
    event = {"event": "round", "round": 1, "sites": measured, "global": {"dice": 1.0}}
    History(run.folder / "history.jsonl").append(event)
    found, console = status(watched), Console(record=True, width=120)
    show(found, False, console)
    assert found.runs[0].patients == 1 and "dice 1.000 (n=1)" in console.export_text()


def test_a_bound_that_a_site_met_is_named(watched: Path, run: Run) -> None:
    """It counted, so nothing else would say that it claimed a billion patients."""
    claim = line("counted", patients=12, claimed=10**9, size=1.0, share=0.5, share_before=0.9)
    event = {"event": "round", "round": 1, "global": None, "sites": {"hospital-a": claim}}
    History(run.folder / "history.jsonl").append(event)
    row, _ = status(watched).sites
    assert row.reason == "claimed 1000000000 patients, counted as 12; share lowered from 0.90 to 0.50"


def test_the_newest_round_is_that_of_the_run_that_was_written_last(
    watched: Path, run: Run, run_config: Callable[..., RunConfig]
) -> None:
    """A later run may be trained, and why nobody counted in it be seen, while an earlier one is stopped."""
    later = new_run(watched, "two", run_config(), [], b"code")
    for number, (each, site) in enumerate(
        {run: line("counted"), later: line("declined", reason="not approved")}.items()
    ):
        History(each.folder / "history.jsonl").append(
            {"event": "round_failed", "round": 1, "sites": {"hospital-a": site}}
        )
        os.utime(each.folder / "history.jsonl", (number, number))
    run.want("stop")
    found = status(watched)
    assert [each.name for each in found.runs] == ["one", "two"]
    assert found.sites[0].reason == "not approved"


def test_a_finished_run_of_an_older_version_is_whole(watched: Path, run: Run) -> None:
    """Its configuration had other fields, which none but its own version can read."""
    saved = json.loads((run.folder / "run.json").read_text())
    saved["run"]["gate"] = saved["run"].pop("fold")
    (run.folder / "run.json").write_text(json.dumps(saved))
    event = {"event": "round", "round": 1, "global": {"dice": 0.5}, "sites": {}}
    for each in (event, {"event": "end", "status": "done"}):
        History(run.folder / "history.jsonl").append(each)
    (found,) = status(watched).runs
    assert (found.state, found.round, found.rounds, found.value) == ("done", 1, saved["run"]["rounds"], 0.5)


def test_where_a_round_stands_and_about_how_long_it_takes(watched: Path, run: Run) -> None:
    """By the rounds before: two of 40 s; of the second of two rounds 10 s are gone."""
    event = {"event": "round", "round": 1, "seconds": 40.0, "sites": {}, "global": {"dice": 0.5}}
    History(run.folder / "history.jsonl").append(event)
    with hold_audit(run.folder), RoundProgress(2, run.files.progress) as progress:
        progress.start(2, 2, trained=["hospital-c"])
        progress.enter(2, "training", ["hospital-a", "hospital-b"])
        progress.answer("hospital-b", "declined")
        began = datetime.now(UTC) - timedelta(seconds=10)
        rewrite(run.files.progress, began=began.isoformat())
        found = status(watched)
        (one,) = found.runs
        assert one.now is not None and (one.now.round, one.now.phase) == (2, "training")
        assert [site.doing for site in found.sites] == ["training", None]
        assert one.seconds_left is not None and 20 < one.seconds_left <= 30
        text = shown(watched)
        assert "one: round 2, training since " in text
        assert "; at work: hospital-a; answered: hospital-b declined, hospital-c trained; about " in text
        rewrite(run.files.progress, began=(began - timedelta(hours=1)).isoformat())
        assert status(watched).runs[0].seconds_left == 0.0  # longer than the rounds before
        (run.files.progress).write_text("{half")
        assert status(watched).runs[0].now is None
    assert not (run.files.progress).exists()  # nobody takes it for the round of today


def test_after_a_kill_it_says_what_is_true(watched: Path, run: Run) -> None:
    """A killed server leaves its progress; nobody is at work, though Flower takes two minutes to notice."""
    write_online(watched, {"programs": {}, "sites": {}, "trouble": None})
    since = run.wanted().since
    run.submitted(Submission(since=since, flower=1, tries=1))
    assert status(watched).runs[0].reason == "its server starts"
    RoundProgress(2, run.files.progress).enter(1, "training", ["hospital-a"])
    found = status(watched)
    assert "its server was killed" in str(found.runs[0].reason)
    assert (found.runs[0].now, found.sites[0].doing) == (None, None)
    run.submitted(Submission(since=since, tries=1))
    assert "its server ended" in str(status(watched).runs[0].reason)
    with hold_audit(run.folder):  # it is back
        assert status(watched).runs[0].reason is None


def test_no_cell_is_cut_at_80_columns(watched: Path, run_config: Callable[..., RunConfig]) -> None:
    """Headings read "membe…" and names lost their end; the longest name goes on in the next line."""
    name = "hospital-of-the-longest-name-that-a-folder-may-have-in-all-64-ab"
    new_run(watched, name, run_config(), [], b"code")
    shutil.copytree(watched / "sites/hospital-a", watched / f"sites/{name}")
    event = {"event": "round", "round": 1, "seconds": 1.0, "global": {"dice": 0.5}}
    event["sites"] = {name: line("not_invited", patients=12345, epsilon=123.456)}
    History(watched / f"runs/{name}/history.jsonl").append(event)
    seen = {"node": 1, "online": False, "seen": "2026-01-02T03:04:05+00:00"}
    write_online(watched, {"programs": {}, "sites": {name: seen}, "trouble": None})
    text = shown(watched)
    assert "…" not in text
    for words in ("site ", "last seen", "patients", "last round", "epsilon", "not_invited", "12345 of 100", "123.456"):
        assert words in text
    first = [row.split(" ")[0] for row in text.splitlines()]
    assert "".join(first).count(name) >= 2  # of the site and of the run, folded


@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "optimizer.safetensors", "code", "audit"])
def test_what_a_server_goes_on_from_is_looked_at(watched: Path, run: Run, file: str) -> None:
    """Its server ended over it ten times, while status said "waiting"."""
    checkpoints = run.folder / "checkpoints"
    save_checkpoint(checkpoints, 1, {"model": {"w": torch.ones(100)}, "optimizer": {}}, {"round": 1})
    with hold_audit(run.folder) as audit:
        audit.log_start("start", "r", "h")
    assert status(watched).runs[0].state == "waiting"
    own = {"code": run.folder / "code.fab", "audit": run.folder / "audit/audit.jsonl"}
    damaged = own.get(file, checkpoints / "round-0001" / file)
    damaged.write_bytes(damaged.read_bytes()[:-5] if file != "audit" else b"nonsense\n")
    (found,) = status(watched).runs
    assert found.state == "damaged"
    assert ("round-0001" if file not in own else damaged.name) in str(found.reason)


@pytest.mark.parametrize("file", ["run.json", "wanted.json", "history.jsonl"])
def test_a_damaged_file_of_a_run_hides_no_other(
    watched: Path, run: Run, run_config: Callable[..., RunConfig], file: str
) -> None:
    new_run(watched, "other", run_config(), [], b"code")
    (run.folder / file).write_text("{half\n")
    found = {each.name: each for each in status(watched).runs}
    assert found["one"].state == "damaged"
    assert file in str(found["one"].reason)
    assert found["other"].state == "waiting"
    stop(watched, None)
