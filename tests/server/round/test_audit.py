"""The server's audit log, alone and against the sites': each keeps the other's head."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from small_run import composed

import gliofed.server.round.sites
from gliofed.client.round.audit_command import audit_command as at_site
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.server.round.answers import UNSIGNED
from gliofed.server.round.audit import hold_audit
from gliofed.server.round.audit_command import audit_command as at_server
from gliofed.server.round.progress import RoundProgress
from gliofed.server.round.run_keys import RunKeys
from gliofed.server.round.sites import Federation, Sites
from gliofed.shared.audit import audit_file, compare, read_audit
from gliofed.shared.audit_command import NoLogError
from gliofed.shared.chain import hold_chain
from gliofed.shared.config import RunConfig
from gliofed.shared.keys import new_key, public_line
from gliofed.shared.messages import Reply
from gliofed.shared.parse import ConfigError
from gliofed.simulation.grid import LocalGrid
from gliofed.simulation.simulate import simulate

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three sites: one has a round a day, and one's update is changed after its receipt was written."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert simulate(as_run(out, "rounds=2")).status == "incomplete"
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def as_run(out: Path, *overrides: str) -> dict[str, Any]:
    return composed(
        "sites=3",
        f"out={out}",
        "policies={site-2:{max_rounds_a_day:1}}",
        "faults={site-3:nan}",
        *overrides,
    )


def events(folder: Path) -> Events:
    return read_audit(audit_file(folder)).events()


def of(folder: Path, event: str) -> Events:
    return [line for line in events(folder) if line["event"] == event]


def site(run: Path, name: str = "site-1") -> Path:
    return run / "sites" / name


def test_what_is_noted(finished: Path) -> None:
    lines = events(finished)
    saved = json.loads((finished / "run.json").read_text())
    assert (lines[0]["event"], lines[0]["run_id"], lines[0]["config_hash"]) == (
        "start",
        saved["run_id"],
        saved["config_hash"],
    )
    assert (lines[-1]["event"], lines[-1]["status"]) == ("end", "incomplete")
    folds = of(finished, "fold")
    assert [(line["round"], line["sites"]) for line in folds] == [(1, ["site-1", "site-2"]), (2, ["site-1"])]
    model = (finished / "model" / "model.safetensors").read_bytes()
    assert folds[-1]["weights"] == sha256(model).hexdigest()
    requests = {(line["kind"], line["round"], line["site"]) for line in of(finished, "request")}
    ours = {("prepare", 1, "site-1"), ("train", 1, "site-1"), ("train", 2, "site-1"), ("evaluate", 2, "site-1")}
    assert ours <= requests
    assert {line["config_hash"] for line in of(finished, "request")} == {saved["config_hash"]}
    sent = {(line["kind"], line["round"]): line["weights"] for line in of(finished, "request")}
    assert [sent["train", 2], sent["evaluate", 2]] == [line["weights"] for line in folds]
    update = (finished / "refused" / "round-0001" / "site-3.safetensors").read_bytes()
    (reply,) = (
        line for line in of(finished, "reply") if (line["kind"], line["round"], line["site"]) == ("train", 1, "site-3")
    )
    assert (reply["bytes"], reply["sha256"]) == (len(update), sha256(update).hexdigest())
    codes = [line["code"] for line in of(finished, "reply") if (line["kind"], line["site"]) == ("train", "site-2")]
    assert codes == ["ok", "rounds_a_day"]


def test_a_late_reply_is_noted_as_well(
    tmp_path: Path, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not count, but the site's log has its receipt."""
    monkeypatch.setattr(gliofed.server.round.sites, "SLACK", 0.0)
    grid = LateGrid()
    with hold_audit(tmp_path) as audit:
        federation = Federation(
            config=run_config("round.deadline=0.01", "round.expected=[a]"),
            out=tmp_path,
            run_id="r",
            names=lambda: {1: "a"},
        )
        sites = Sites(grid, federation, audit, RoundProgress(1))  # type: ignore[arg-type]
        assert sites.roll(1)[1]["a"].status == "late"
        grid.late = False
        sites.roll(2)
    lines = [(line["event"], line["round"], line["site"], line.get("head")) for line in events(tmp_path)]
    assert lines[:3] == [("request", 1, "a", None), ("absent", 1, "a", None), ("reply", 1, "a", "f" * 64)]
    assert [line["kind"] for line in events(tmp_path)[:3]] == ["prepare"] * 3


@pytest.mark.parametrize(("head", "ready"), [("f" * 64, ["a"]), ("", [])])
def test_a_reply_without_a_head_does_not_count(
    tmp_path: Path, run_config: Callable[..., RunConfig], head: str, ready: list[str]
) -> None:
    """A site that names no line of its log could write it anew."""
    with hold_audit(tmp_path) as audit:
        grid = LateGrid(late=False, head=head)
        federation = Federation(
            config=run_config("round.expected=[a]"), out=tmp_path, run_id="r", names=lambda: {1: "a"}
        )
        sites = Sites(grid, federation, audit, RoundProgress(1))  # type: ignore[arg-type]
        nodes, absent = sites.roll(1)
    assert sorted(nodes) == ready
    if not ready:
        assert absent["a"].reason == events(tmp_path)[-1]["reason"] == "its reply names no line of its audit log"


@pytest.mark.parametrize("late", [False, True])
def test_a_reply_that_is_not_signed_is_none(
    tmp_path: Path, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Whoever could alter it on its way could have made it up; nothing in it reaches the log."""
    monkeypatch.setattr(gliofed.server.round.sites, "SLACK", 0.0)
    (tmp_path / "sites/a").mkdir(parents=True)
    (tmp_path / "sites/a/key.pub").write_text(public_line(new_key().public_key()))
    with hold_audit(tmp_path, RunKeys(new_key(), "", FederationFolder(tmp_path))) as audit:
        grid = LateGrid(late)
        federation = Federation(
            config=run_config(f"round.deadline={0.01 if late else 300}", "round.expected=[a]"),
            out=tmp_path,
            run_id="r",
            names=lambda: {1: "a"},
        )
        sites = Sites(grid, federation, audit, RoundProgress(1))  # type: ignore[arg-type]
        found = sites.roll(1)[1]["a"]
        assert found == UNSIGNED if not late else found.status == "late"
        grid.late = False
        assert "a" in sites.roll(2)[1]
    assert not of(tmp_path, "reply")
    assert UNSIGNED.reason in [line["reason"] for line in of(tmp_path, "absent")]


class LateGrid:
    """One site, whose answers come when nobody waits for them any more."""

    def __init__(self, late: bool = True, head: str = "f" * 64) -> None:
        LocalGrid(ClientApp(), {}, 1, 1.0)  # a Message needs to know who speaks
        self.late, self.head, self.asked = late, head, {}

    def get_node_ids(self) -> list[int]:
        return [1]

    def push_messages(self, messages: list[Message]) -> list[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = name = f"message-{len(self.asked)}"
            self.asked[name] = message
        return [name]

    def pull_messages(self, names: list[str]) -> list[Message]:
        reply = Reply(site="a", patients=3, head=self.head)
        return [] if self.late else [Message(reply.to_records(), reply_to=self.asked[name]) for name in names]


def test_both_agree(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = str(site(finished) / "audit" / "head.json")
    assert at_server(["verify", str(finished), "--site", str(site(finished)), "--site", head]) == 0
    assert at_site(["verify", str(site(finished)), "--server", str(finished)]) == 0
    said = capsys.readouterr().out
    replies = len([line for line in of(finished, "reply") if line["site"] == "site-1"])
    assert said.count(f"site-1: {replies} replies and {replies} requests agree") == 2
    assert "its log ends with site-1's reply to evaluate of round 2" in said
    noted = {line["server_head"] for line in of(site(finished), "request")}
    assert noted <= set(read_audit(audit_file(finished)).hashes) and len(noted) == replies


def test_a_reply_that_is_not_as_its_receipt(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fault is put into the message after the site has written what leaves."""
    assert at_server(["verify", str(finished), "--site", str(site(finished, "site-3"))]) == 1
    assert "is not the reply of line" in capsys.readouterr().err


def rewritten(folder: Path, keep: Callable[[Events], Events]) -> None:
    """Write a log and its head anew, from a part of its events: by itself it holds."""
    kept = keep(events(folder))
    shutil.rmtree(folder / "audit")
    with hold_chain(audit_file(folder)) as log:
        log.append(*({key: value for key, value in event.items() if key != "before"} for event in kept))
    read_audit(audit_file(folder))


@pytest.mark.parametrize(
    "keep",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[3:],
        lambda lines: [{**line, "round": 9} for line in lines],
        lambda lines: [line for line in lines if line["event"] != "receipt"],
    ],
)
def test_a_site_that_wrote_its_log_anew(run: Path, keep: Callable[[Events], Events]) -> None:
    rewritten(site(run), keep)
    assert at_site(["verify", str(site(run))]) == 0
    assert at_server(["verify", str(run), "--site", str(site(run))]) == 1
    assert at_site(["verify", str(site(run)), "--server", str(run)]) == 1


@pytest.mark.parametrize(
    "keep",
    [
        # Its last lines are replies, whose hashes nobody has.
        lambda lines: lines[: len(lines) // 2],
        lambda lines: [line for line in lines if line.get("site") != "site-2"],
        lambda lines: [{**line, "sites": ["site-9"]} if line["event"] == "fold" else line for line in lines],
    ],
)
def test_a_server_that_wrote_its_log_anew(run: Path, keep: Callable[[Events], Events]) -> None:
    rewritten(run, keep)
    assert at_server(["verify", str(run)]) == 0
    assert at_site(["verify", str(site(run)), "--server", str(audit_file(run))]) == 1


def test_a_damaged_log_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = audit_file(run)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-3]))
    assert at_server(["verify", str(run)]) == 1
    assert "its end was cut off" in capsys.readouterr().err
    with pytest.raises(ConfigError), hold_audit(run):
        pass


def test_wrong_use(finished: Path, tmp_path: Path) -> None:
    for words in (["verify", str(tmp_path)], ["verify", str(finished), "--site", str(tmp_path)]):
        with pytest.raises(NoLogError):
            at_server(words)
    with pytest.raises(SystemExit) as wrong:
        at_server([])
    assert wrong.value.code == 2


def test_a_head_that_the_server_has_not_noted(run: Path) -> None:
    head = site(run) / "audit" / "head.json"
    head.write_text(json.dumps({"lines": 3, "hash": "0" * 64}))
    assert at_server(["verify", str(run), "--site", str(head)]) == 1


def test_another_run_is_no_proof(finished: Path, out: Path) -> None:
    """Its site bears the same name, but no reply of it is in this run."""
    assert simulate(as_run(out, "rounds=1")).status == "incomplete"
    with pytest.raises(ConfigError, match="no reply to the run"):
        compare(read_audit(audit_file(site(out))), read_audit(audit_file(finished)))


def test_one_writer_a_run(run: Path) -> None:
    with hold_audit(run), pytest.raises(ConfigError, match="wait until it ends"), hold_audit(run):
        pass


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_log(out: Path) -> None:
    """For want of a quorum it ended; the heads that were noted before are still lines."""
    values = as_run(out, "rounds=1", "round.quorum=3")
    assert simulate(values).status == "failed"
    before = audit_file(out).read_bytes()
    assert simulate(values | {"out": None, "resume": str(out)}).status == "failed"
    assert audit_file(out).read_bytes().startswith(before)
    assert [line["event"] for line in events(out) if line["event"] in ("start", "resume", "end")] == [
        "start",
        "end",
        "resume",
        "end",
    ]
    compare(read_audit(audit_file(site(out))), read_audit(audit_file(out)))
