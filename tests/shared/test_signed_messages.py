"""What the other end did not sign is not answered, and does not count."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from both_ends import Both
from flwr.app import RecordDict
from signed_ends import both, original, root, trust

from gliofed.client.round.audit import Audit
from gliofed.client.round.judge import judge
from gliofed.client.round.outbox import Outbox
from gliofed.client.round.policy import reply_key
from gliofed.server.round.run_keys import open_keys
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.messages import MessageError, Reply, Request
from gliofed.shared.parse import ConfigError
from gliofed.shared.signatures import check_signatures

__all__ = ["both", "original", "root"]


@pytest.mark.parametrize("other", [{"signature": ""}, {"certificate": ""}, {"run_id": "s"}, {"weights": b"others"}])
def test_a_site_does_nothing_that_it_was_not_asked_for(both: Both, root: Path, other: dict[str, Any]) -> None:
    """Whoever reads inside the TLS connection could alter a request. It is noted, and is no claim on the server."""
    audit = Audit(both.site, "train", both.keys)
    with pytest.raises(MessageError, match="the request to a is not signed by the federation's server"):
        both.ask(audit=audit, **other)
    both.answer(audit, Reply(site="a", status="failed", code="protocol"))
    assert [event["event"] for event in both.logs()[0].events()[-3:]] == ["request", "decision", "receipt"]
    log = read_audit(audit_file(Path(both.site.work)))
    assert " requests of the server signed with " in check_signatures(log, "request", trust(root))


def test_nothing_is_read_for_a_request_that_is_not_signed(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the log nor a stored update: whoever may send requests could keep the hospital reading."""
    for name in ("audit.hold_chain", "judge.read_consent", "judge.Outbox", "judge.data_reading"):
        # There is no other way to see that they are not called.
        monkeypatch.setattr(f"gliofed.client.round.{name}", lambda *_: pytest.fail("it was read"))
    with pytest.raises(MessageError, match="not signed"):
        both.ask(signature="")


def test_a_certificate_that_the_authority_gave_for_something_else(both: Both, root: Path) -> None:
    """The proxy's own, whose key is where calls from outside arrive."""
    server = root / "study/server"
    for end in ("key", "crt"):
        (server / f"server.{end}").replace(server / f"link.{end}")
    both.server._keys = open_keys(root / "study")
    with pytest.raises(MessageError, match="not signed"):
        both.ask()


@pytest.mark.parametrize(("days", "good"), [(-1, False), (1, True), (824, True), (826, False)])
def test_a_certificate_signs_while_it_is_in_force(
    both: Both, monkeypatch: pytest.MonkeyPatch, days: int, good: bool
) -> None:
    """It has 825 days; whoever finds an old key could sign with it for good."""
    then = datetime.now(UTC) + timedelta(days=days)
    for module in ("gliofed.client.round.judge", "gliofed.shared.chain"):
        monkeypatch.setattr(f"{module}._now", lambda: then)
    with nullcontext() if good else pytest.raises(MessageError, match="not signed"):
        both.ask()


@pytest.mark.parametrize("kind", ["prepare", "train", "evaluate"])
def test_a_request_that_is_sent_again_is_not_worked_on_again(both: Both, kind: str) -> None:
    """Whoever saw it could spend the budget of the patients with it. A stored reply may be fetched twice."""
    asked = Request(run_id="r", round=1, config=both.config, weights=both.weights * (kind != "prepare"))
    request, _ = both.server.log_requests(kind, asked, ["a", "z"])
    forged = Audit(both.site, kind, both.keys)
    with pytest.raises(MessageError, match="not signed"):
        judge(kind, both.site, replace(request, signature=""), forged)
    both.answer(forged, Reply(site="a", status="failed", code="protocol"))  # which is noted, and keeps no other out
    judge(kind, both.site, request, Audit(both.site, kind, both.keys))
    with pytest.raises(MessageError, match="came before"):
        judge(kind, both.site, request, Audit(both.site, kind, both.keys))
    both.ask(kind)
    if kind == "train":
        key = reply_key(both.site.policy, request)
        Outbox(Path(both.site.work) / "outbox").store(key, Reply(site="a", update=b"u"))
        judge(kind, both.site, request, Audit(both.site, kind, both.keys))


def test_a_request_to_another_site(both: Both) -> None:
    with pytest.raises(MessageError, match="not signed"):
        both.ask(site="z")


def test_a_server_of_another_authority(both: Both, root: Path, tmp_path: Path) -> None:
    both.server._keys = open_keys(root.parent / "other/study")
    with pytest.raises(MessageError, match="not signed"):
        both.ask()


@pytest.mark.parametrize(
    "change",
    [{"patients": 4}, {"update": b"others"}, {"records": "0" * 64}, {"signature": ""}, {"head": "0" * 64}],
)
def test_a_reply_that_was_altered_on_its_way_does_not_count(both: Both, change: dict[str, Any]) -> None:
    reply = both.ask()
    assert both.server.is_signed("train", 1, "a", reply)
    altered = replace(reply, **change)
    assert not both.server.is_signed("train", 1, "a", altered)
    for kind, round, site in (("train", 2, "a"), ("evaluate", 1, "a"), ("train", 1, "z")):
        assert not both.server.is_signed(kind, round, site, reply)


def test_a_metric_is_signed_as_well(both: Both) -> None:
    """And all else that a message holds."""
    reply = both.ask()
    records = reply.to_records()
    records.metric_records["metrics"]["dice"] = 1.0
    assert not both.server.is_signed("train", 1, "a", Reply.from_records(records))
    again = RecordDict({name: records[name] for name in reversed(list(records))})  # Flower keeps no order
    del again.metric_records["metrics"]["dice"]
    assert both.server.is_signed("train", 1, "a", Reply.from_records(again))


def test_a_key_that_is_not_there_is_no_key(both: Both, root: Path) -> None:
    reply = both.ask()
    (root / "study/sites/a/key.pub").write_text("damaged")
    assert not both.server.is_signed("train", 1, "a", reply)
    (root / "study/sites/a/key.pub").unlink()
    assert not both.server.is_signed("train", 1, "a", reply)


@pytest.mark.parametrize("lost", ["link.key", "link.crt"])
def test_a_server_without_its_key(root: Path, lost: str) -> None:
    (root / "study/server" / lost).write_bytes((root.parent / "other/study/server" / lost).read_bytes())
    with pytest.raises(ConfigError, match=r"not the key of link\.crt; run gliofed-server renew"):
        open_keys(root / "study")
    (root / "study/server" / lost).unlink()
    with pytest.raises(ConfigError, match="cannot be read, with its certificate; run gliofed-server renew"):
        open_keys(root / "study")


@pytest.mark.parametrize(("key", "value"), [("signature", "A" * 161), ("signature", "{"), ("certificate", "A" * 4001)])
def test_a_signature_is_bounded(both: Both, key: str, value: str) -> None:
    """It enters the log, which is read whole for each message."""
    records = Request(run_id="r", round=1, config=both.config, head="0" * 64).to_records()
    records.config_records["request"][key] = value
    with pytest.raises(MessageError):
        Request.from_records(records)
    if key == "signature":
        answer = Reply(site="a").to_records()
        answer.config_records["reply"][key] = value
        with pytest.raises(MessageError):
            Reply.from_records(answer)
