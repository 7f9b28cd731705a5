"""gliofed-client status: what runs, what went wrong and what left, also from a folder in which much is broken."""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_federation import status

import gliofed.client.link.preflight
from gliofed.client.cli import main
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.site_file import read_site
from gliofed.client.round.audit import Audit, note
from gliofed.client.round.ledger import Charge, hold
from gliofed.server.provisioning.certificates import make_authority
from gliofed.server.provisioning.kit_texts import site_yaml
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import hold_chain
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.join_request import sign_request
from gliofed.shared.keys import certificate_sha256, new_key
from gliofed.shared.kit import Kit
from gliofed.shared.messages import Reply, describe_records
from gliofed.shared.processes import start_of
from gliofed.shared.site_config import SiteConfig

THEN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = make_authority(tmp_path / "made", "study", datetime.now(UTC))
    place, sha256 = tmp_path / "a", certificate_sha256(authority.certificate)
    kit = Kit(federation="study", site="a", address="here:1", ca_sha256=sha256, code_sha256="a" * 64, made="now")
    write_json(place / "kit.json", kit.__dict__)
    write_json(place / "a.request.json", asdict(sign_request(kit, "b" * 64, new_key(), "now", 60)))
    write_bytes(place / "ca.crt", (tmp_path / "made/ca/ca.crt").read_bytes())
    text = site_yaml("a").replace("root: ???", "root: scans").replace("labels: ???", "labels: mock")
    (place / "site.yaml").write_text(text.replace("max_epsilon: null", "max_epsilon: 3"))
    return place


@pytest.fixture
def started(folder: Path) -> Iterator[None]:
    """As if start ran."""
    with HospitalFolder(folder).lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@pytest.fixture
def shown(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What the command says, as text or as an object."""

    def show(as_json: bool = False, columns: int = 200) -> Any:
        monkeypatch.setenv("COLUMNS", str(columns))
        assert status(monkeypatch, main, "status", folder, *["--json"] * as_json) == 0
        said = capsys.readouterr().out
        return json.loads(said) if as_json else said

    return show


def state(folder: Path, **says: Any) -> None:
    at = THEN.isoformat()
    whole = {"pid": 1, "state": "idle", "kind": None, "round": None, "since": at, "contact": at, "pulled": at, **says}
    write_json(folder / "state.json", whole)


def state_of_now(folder: Path, **says: Any) -> None:
    """As a SuperNode noted it that runs: this process stands for it."""
    state(folder, **{"pid": os.getpid(), "started": start_of(os.getpid()), **says})


def leave(site: SiteConfig, round: int, **reply: Any) -> None:
    """Note a reply that leaves."""
    audit = Audit(site, "train")
    audit._about |= {"run_id": "run-1", "round": round}
    audit._noted = True
    gone = Reply(site="a", **reply)
    audit.receipt(gone, describe_records(gone.to_records()))


def test_before_anything_ran(shown: Any) -> None:
    said = ["a of study: not running", "last contact: none yet", "patients as stated to the aggregator: at most 60"]
    assert shown().splitlines() == [*said, "approved code: none"]
    assert shown(as_json=True)["patients"] == 60
    assert shown(as_json=True)["faults"] == []


def test_no_hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(monkeypatch, main, "status", tmp_path) == 2
    assert "no hospital's folder" in capsys.readouterr().err


def test_after_a_while(folder: Path, shown: Any) -> None:
    """What an earlier start left is no sign that one runs; problems and refused code stay in sight."""
    state(folder)
    site = read_site(folder)
    write_json(folder / "approved.json", [{"sha256": "a" * 64, "time": "yesterday", "files": 3}])
    write_json(HospitalFolder(folder).problem, {"time": "today", "sentence": "the server\x1b[2K is away"})
    for round in range(12):
        leave(site, round, patients=7, update=b"u" * 1000, metrics={"loss": 0.5})
    leave(site, 12, status="declined", code="policy")
    note(site, {"event": "code_refused", "sha256": "c" * 64})
    for act in ("withdrawn", "readmitted", "withdrawn"):
        note(site, {"event": act, "patient": "e" * 64, "runs": [], "unknown": [], "replies": 0, "cache": 0})
    with hold(site.folder.ledger, 1e-4) as ledger:
        charge = Charge(what="train", run_id="run-1", round=1, sigma=2.0, rate=1.0, steps=1, patients=7)
        ledger.charge(charge, None)
        spent = ledger.epsilon()
    text = shown()
    assert "a of study: not running\n" in text and THEN.isoformat() in text
    assert "today the server\\x1b[2K is away" in text and f"approved code: {'a' * 16} (yesterday)" in text
    assert f"refused code: {'c' * 64}" in text
    assert f"epsilon of each patient: {spent:.3f} at delta=0.0001; ceiling: 3" in text
    assert "consent withdrawn: 1 patient;" in text
    found = shown(as_json=True)
    assert found["withdrawn"] == 1
    assert [each["round"] for each in found["receipts"]] == list(range(3, 13))
    first, last = found["receipts"][0], found["receipts"][-1]
    assert first["bytes"] > 1000 and len(first["sha256"]) == 64
    assert (first["metrics"], first["patients"]) == (["loss"], 7)
    assert (last["code"], last["sha256"]) == ("policy", None)
    why = "the site's policy does not allow it"
    assert first["reason"] is None and last["reason"] == why
    assert text.splitlines()[-1] == f"policy: {why}; the detail is in {site.work}/site.log"
    assert found["privacy"]["epsilon"] == spent


def test_many_cases_that_are_left_out_are_named(folder: Path, shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply says so too, but one of a private run may not."""
    sentence = "5 of 6 cases are left out"
    monkeypatch.setattr("gliofed.client.doctor.left_out.left_out_warnings", lambda site: [f"{site.work}: {sentence}"])
    assert sentence in shown(as_json=True)["warnings"][0] and f"warning: {folder}/work: {sentence}" in shown()


def test_a_reply_is_a_line_of_80_columns(folder: Path, shown: Any) -> None:
    """Cells that wrap cannot be told from the next row's."""
    site = read_site(folder)
    metrics = {f"dice_{number}": 0.5 for number in range(20)}
    leave(site, 17, patients=2, update=b"u" * 138_000_000, metrics=metrics)
    local = datetime.now().astimezone()  # a second ago at most, or two
    rows = {f"{local - timedelta(minutes=ago):%m-%d %H:%M} run-1 17    train ok     " for ago in (0, 1)}
    (line,) = (line for line in shown(columns=80).splitlines() if " run-1 " in line)
    assert any(line.startswith(row) for row in rows) and line.rstrip().endswith("patients 2, metrics 20")
    assert "tensors" not in shown(columns=109) and "tensors" in shown(columns=110)


def test_code_that_was_approved_since_is_not_asked_for(folder: Path, shown: Any) -> None:
    note(read_site(folder), {"event": "code_refused", "sha256": "c" * 64})
    assert shown(as_json=True)["refused_code"]["sha256"] == "c" * 64
    write_json(folder / "approved.json", [{"sha256": "c" * 64, "time": "now", "files": 3}])
    assert shown(as_json=True)["refused_code"] is None and "refused" not in shown()


def test_all_is_of_one_moment(folder: Path, shown: Any, started: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading Opacus takes seconds, in which a request may come; without a ledger nothing is loaded."""
    site = read_site(folder)

    def slow(place: Path) -> None:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        state_of_now(folder, state="working", kind="train", round="3", since=since)
        note(site, {"event": "request", "kind": "train", "run_id": "run-1", "round": 3})

    state_of_now(folder)
    monkeypatch.setattr("gliofed.client.round.ledger.read_ledger", slow)
    assert shown(as_json=True)["run"] is None
    site.folder.ledger.mkdir(parents=True)
    assert shown(as_json=True)["run"] == "run-1"


def test_a_supernode_that_was_left(folder: Path, shown: Any) -> None:
    """A killed start leaves it connected: not running would be untrue."""
    state_of_now(folder)
    assert "still running unwatched" in shown(as_json=True)["doing"]
    state(folder)
    assert shown(as_json=True)["doing"] == "not running"


@pytest.mark.parametrize(
    "old",
    [{"pid": 2**22 + 1}, {"started": "1"}, {"started": None}, {"pid": None}, {"pid": None, "started": None}],
    ids=["of a process that ended", "of another with its number", "of an earlier version", "damaged", "damaged more"],
)
def test_the_state_of_before_is_not_that_of_now(folder: Path, shown: Any, started: None, old: dict[str, Any]) -> None:
    """After a crash, and for the seconds in which a SuperNode loads, it read as connected."""
    state_of_now(folder, state="working", kind="train", round="3", **old)
    found = shown(as_json=True)
    assert (found["doing"], found["round"], found["since"]) == ("starting", None, None)
    assert shown().startswith("a of study: starting\n")


def test_what_a_request_is_about(folder: Path, shown: Any, started: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own name is in the site's log; Flower's message has only the round."""
    assert shown(as_json=True)["doing"] == "starting"
    site = read_site(folder)
    with hold_chain(audit_file(Path(site.work))) as log:
        log.append({"event": "request", "kind": "train", "run_id": "run-1", "round": 3})
    now = datetime.now(UTC)
    state_of_now(folder, state="working", kind="train", round="3", since=(now - timedelta(seconds=20)).isoformat())
    found = shown(as_json=True)
    assert (found["doing"], found["run"], found["pid"]) == ("training round 3", "run-1", os.getpid())
    # The line is of the round before: the process of this one is still loading.
    state_of_now(folder, state="working", kind="train", round="4", since=(now + timedelta(seconds=20)).isoformat())
    found = shown(as_json=True)
    assert (found["doing"], found["run"], found["round"]) == ("training round 4", None, "4")


def test_a_hospital_sees_its_own_round(folder: Path, shown: Any) -> None:
    """What it was asked last, what it did, and what comes next."""
    assert shown(as_json=True)["asked"] is None
    site = read_site(folder)
    note(site, {"event": "request", "kind": "train", "run_id": "run-1", "round": 3})
    assert "to train round 3 of run run-1; not answered yet\nnext: its reply" in shown()
    leave(site, 3, patients=7, update=b"u")
    found = shown(as_json=True)["asked"]
    assert (found["kind"], found["round"], found["run_id"], found["code"]) == ("train", 3, "run-1", "ok")
    assert "to evaluate, or to train the next round" in found["next"] and ": ok\nnext: to evaluate" in shown()
    note(site, {"event": "request", "kind": "train", "run_id": "run-1", "round": 4})
    leave(site, 4, status="declined", code="hours")
    assert ": hours\nnext: to be asked again" in shown()


@pytest.mark.parametrize("receipt", [False, True], ids=["ended", "ended after its receipt"])
def test_an_error_is_no_answer(folder: Path, shown: Any, receipt: bool) -> None:
    """It read as not answered yet, for ever, or as answered where a reply was lost after its receipt."""
    site = read_site(folder)
    note(site, {"event": "request", "kind": "train", "run_id": "run-1", "round": 3})
    if receipt:
        leave(site, 3, patients=7, update=b"u")
    note(site, {"event": "error_sent", "code": 8, "kind": "train", "round": "3"})
    found, text = shown(as_json=True)["asked"], shown()
    assert (found["run_id"], found["answered"], found["code"]) == ("run-1", None, None)
    assert found["error"]["sentence"] == "the site's program was ended"
    assert " of run run-1; no answer, but an error was sent " in text
    assert ": the site's program was ended\nnext: to be" in text
    note(site, {"event": "request", "kind": "train", "run_id": "run-1", "round": 3})
    assert shown(as_json=True)["asked"]["error"] is None and "not answered yet" in shown()


def test_an_error_of_a_request_that_was_not_noted(folder: Path, shown: Any) -> None:
    """Its program ended while it loaded, or its code is not approved: the request before was answered."""
    site = read_site(folder)
    note(site, {"event": "request", "kind": "train", "run_id": "run-1", "round": 3})
    leave(site, 3, patients=7, update=b"u")
    note(site, {"event": "error_sent", "code": 7, "kind": "evaluate", "round": "3"})
    said = " to evaluate round 3 of run ?; no answer, but an error was sent "
    assert said in shown() and ": the site did not approve this code\n" in shown()


def test_a_problem_that_is_over_is_told_from_one_that_lasts(folder: Path, shown: Any) -> None:
    """A server that was away an hour read as away long after it came back."""
    write_json(HospitalFolder(folder).problem, {"time": THEN.isoformat(), "sentence": "the server is away"})
    state(folder, contact=(THEN - timedelta(minutes=1)).isoformat())
    assert "\nlast problem: " in shown()
    state(folder, contact=(THEN + timedelta(minutes=1)).isoformat())
    assert shown(as_json=True)["problem"]["over"] is True
    assert "\nlast problem, over by now: " in shown()
    state(folder, contact=None)
    assert shown(as_json=True)["problem"]["over"] is False


def test_what_is_damaged_is_said_beside_the_rest(folder: Path, shown: Any, started: None) -> None:
    """A person looks because something is wrong."""
    state_of_now(folder)
    (folder / "approved.json").write_text("[")
    (folder / "ca.crt").unlink()
    write_bytes(folder / "work/audit/audit.jsonl", b"no line\n")
    write_json(folder / "work/audit/head.json", {"lines": 1, "hash": "x"})
    found = shown(as_json=True)
    assert found["doing"] == "connected, waiting for requests"
    words = ("audit.jsonl", "ca.crt", "approved.json")
    assert [word for fault in found["faults"] for word in words if word in fault] == list(words)
    (folder / "site.yaml").write_text("name: ???\n")
    assert "fault: " in shown() and "still ???" in shown()


def test_a_disk_that_is_nearly_full(folder: Path, shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gliofed.client.link.preflight.shutil, "disk_usage", lambda place: SimpleNamespace(free=1e8))
    assert f"fault: {folder}: less than 1 GB is free; make room" in shown()


def test_a_run_in_test_mode_has_no_epsilon(folder: Path, shown: Any) -> None:
    with hold(read_site(folder).folder.ledger, 1e-4) as ledger:
        charge = Charge(what="train", run_id="r", round=1, sigma=2.0, rate=1.0, steps=1, patients=7)
        ledger.charge(replace(charge, private=False), None)
    assert "cannot be told" in shown() and shown(as_json=True)["privacy"]["epsilon"] is None
