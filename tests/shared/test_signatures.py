"""What the other end signed convinces a third person; what it did not sign is found, whoever wrote the log anew."""

import re
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from both_ends import Both, both_ends
from signed_ends import both, original, root, run, site_keys, trust
from telephone import admit_told

from gliofed.client.link.join import join
from gliofed.client.round.audit import Audit
from gliofed.client.round.audit_command import audit_command as at_site
from gliofed.server.provisioning.provision import renew
from gliofed.server.round.audit_command import audit_command as at_server
from gliofed.server.round.run_keys import open_keys
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.chain import Chain, digest
from gliofed.shared.config import RunConfig
from gliofed.shared.keys import fingerprint, new_key, public_line, read_public
from gliofed.shared.messages import MessageError, Reply
from gliofed.shared.parse import ConfigError
from gliofed.shared.signatures import Trust, check_signatures, read_trust, sign

__all__ = ["both", "original", "root"]
Event = dict[str, Any]


def replies(root: Path, known: Trust | None = None) -> str:
    return check_signatures(read_audit(audit_file(run(root))), "reply", trust(root) if known is None else known)


def requests(root: Path, known: Trust | None = None) -> str:
    return check_signatures(
        read_audit(audit_file(run(root) / "work")), "request", trust(root) if known is None else known
    )


def signed(said: str) -> list[str]:
    """How much is signed with each key."""
    return re.findall(r" signed with SHA256:\S+: (\d+)", said)


def mark(root: Path) -> str:
    return fingerprint(read_public((root / "a/site.key.pub").read_text(), ""))


def rewritten(log: Chain, change: Callable[[list[Event]], list[Event]]) -> None:
    """Write a log anew, from its first line to its head: by itself it holds."""
    events = [{key: event[key] for key in event.keys() - {"before", "salt"}} for event in log.events()]
    log.file.write_bytes(b"")
    Chain(log.file, [], [digest("")]).append(*change(events))
    assert len(read_audit(log.file).lines) == len(change(events))


def test_what_both_ends_sent_is_signed(both: Both, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command finds the keys in its own folder, and without them says that nobody has confirmed the key."""
    both.take(both.ask())
    server = fingerprint(open_keys(root / "study").key.public_key())
    assert replies(root).endswith(f"audit.jsonl: replies of a signed with {mark(root)}: 2")
    assert requests(root).endswith(f"audit.jsonl: requests of the server signed with {server}: 2")
    for said in (replies(root, Trust()), requests(root, Trust())):
        assert said.endswith(": 2 (is that its key? compare it, or give --keys)")
    work = Path(shutil.copytree(run(root) / "work", root / "a/work"))
    assert at_server(["verify", str(run(root)), "--site", str(work)]) == 0
    assert at_site(["verify", str(work), "--server", str(run(root))]) == 0
    said = capsys.readouterr().out
    assert said.count("signed with") == 4 and "is that its key" not in said
    assert said.count("a: 2 replies and 2 requests agree") == 2


def test_the_state_that_a_site_goes_on_from_is_signed(root: Path, run_config: Callable[..., RunConfig]) -> None:
    """In both logs, where sites keep something: whoever could alter it would choose what a site trains from."""
    (root / "study/runs").mkdir()
    keys, config, parent = open_keys(root / "study"), run_config("optimizer.moments=kept"), {"a": "b" * 64}
    with both_ends(run(root), config, keys, site_keys(root / "a")) as both:
        both.take(both.ask(parents=parent))
        with pytest.raises(MessageError, match="not signed by the federation's server"):
            both.ask(round=2, parents=parent, parent="c" * 64)
        of_site, of_server = (
            [line.get("parent") for line in log.events() if line["event"] == "request" and line["site"] == "a"]
            for log in both.logs()
        )
        assert (of_site, of_server) == ([None, "b" * 64], [None, "b" * 64, "b" * 64])
        assert " requests of the server signed with " in requests(root)


def test_whom_an_evaluation_is_of_is_signed(root: Path, run_config: Callable[..., RunConfig]) -> None:
    """Else whoever sits between could let a site measure its test patients in every round."""
    (root / "study/runs").mkdir()
    with both_ends(run(root), run_config("data.test=0.2"), open_keys(root / "study"), site_keys(root / "a")) as both:
        both.take(both.ask(of="test"))
        with pytest.raises(MessageError, match="not signed by the federation's server"):
            both.ask(round=2, part="test")
        for log in both.logs():
            parts = [each.get("part") for each in log.events() if each["event"] == "request" and each["site"] == "a"]
            assert parts[:2] == [None, "test"]


def test_a_signature_costs_one_line_a_key(both: Both, root: Path) -> None:
    """Not one in each line: a certificate is as long as all else that a line says."""
    for round in (1, 2, 3):
        both.take(both.ask(round=round), round=round)
    for log in both.logs():
        assert sum(event["event"] == "signer" for event in log.events()) == 1


@pytest.mark.parametrize(
    "forge",
    [
        lambda reply, _: {key: value for key, value in reply.items() if key != "signature"},
        lambda reply, _: {**reply, "patients": 10**9},
        lambda reply, _: {**reply, "round": 2},
        lambda reply, _: {**reply, "sha256": "0" * 64},
        lambda reply, _: {**reply, "records": "0" * 64},
        lambda reply, _: {**reply, "head": None, "signature": None},
        lambda reply, _: {**reply, "signature": "no base64"},
        lambda reply, server: {**reply, "patients": 9, "signature": server({**reply, "patients": 9, "run_id": "r"})},
    ],
)
def test_a_reply_that_the_server_made_up(
    both: Both, root: Path, forge: Callable[[Event, Callable[[Event], str]], Event], capsys: pytest.CaptureFixture[str]
) -> None:
    """The site trained and answered; but not that. With the server's own key it cannot say so either."""
    both.take(both.ask())
    key = open_keys(root / "study").key
    log = both.logs()[1]
    rewritten(log, lambda events: [*events, forge(events[-1], lambda line: sign(key, "reply", line))])
    assert at_server(["verify", str(run(root))]) == 1
    sentence = f"line {len(log.lines) + 1}: this reply is not signed by a, with {mark(root)}; it may be made up"
    assert sentence in capsys.readouterr().err


def test_a_log_signed_with_another_key(both: Both, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server writes the whole log anew, with a key of its own in the place of the site's."""
    other = new_key()

    def change(event: Event) -> Event:
        if event["event"] == "signer":
            return {**event, "key": public_line(other.public_key())}
        return {**event, "signature": sign(other, "reply", {**event, "run_id": "r"})} if "signature" in event else event

    rewritten(both.logs()[1], lambda events: list(map(change, events)))
    forged = fingerprint(other.public_key())
    assert replies(root, Trust()).endswith(f"signed with {forged}: 1 (is that its key? compare it, or give --keys)")
    sentence = f"audit.jsonl: line 4: {forged} is not a's key; known are {mark(root)}"
    for words in ([], ["--keys", str(root / "a/site.key.pub")]):
        assert at_server(["verify", str(run(root)), *words]) == 1
        assert sentence in capsys.readouterr().err
    work = Path(shutil.copytree(run(root) / "work", root / "a/work"))
    assert at_site(["verify", str(work), "--server", str(run(root))]) == 1
    assert sentence in capsys.readouterr().err


def test_an_earlier_key_of_a_site_stays_good(both: Both, root: Path) -> None:
    """The site moved to a new key since: the record has the old one's fingerprint."""
    join(root / "study/kits/a.zip", root / "a2", patients=100)
    admit_told(root / "a2/a.request.json", root / "study", replaces=True)
    both.keys = site_keys(root / "a2")
    both.take(both.ask())
    assert at_server(["verify", str(run(root))]) == 0
    with pytest.raises(ConfigError, match=r"is not a's key; .* an earlier one, give it with --keys"):
        replies(root, read_trust([root / "a2/site.key.pub"]))
    said = replies(root, read_trust([root / "a2/site.key.pub", root / "a/site.key.pub"]))
    assert signed(said) == ["1", "1"]


def test_a_request_that_the_site_made_up(both: Both, root: Path) -> None:
    """That it was asked to train is the server's word alone."""
    log = both.logs()[0]
    request = next(event for event in log.events() if event["event"] == "request")
    made_up = {**request, "kind": "train", "round": 9}
    accepted = {"event": "decision", "decision": "accepted"}
    for signature in ({}, {"signature": None}):
        line = {key: value for key, value in made_up.items() if key not in ("before", "salt", "signature")} | signature
        rewritten(log, lambda events, line=line: [*events, line, accepted])
        with pytest.raises(ConfigError, match=r"line \d+: this request is not signed by the server, with .*made up"):
            requests(root)


def test_a_certificate_of_another_authority(both: Both, root: Path) -> None:
    other = root.parent / "other/study"
    with pytest.raises(ConfigError, match="line 1: a certificate that is not of the federation's authority"):
        requests(root, read_trust([other / "ca/ca.crt"]))


def test_a_certificate_that_had_ended(both: Both, root: Path) -> None:
    """The time is that of the line: a log is good for long after its certificate."""
    signer = next(event for event in both.logs()[0].events() if event["event"] == "signer")
    late = (datetime.fromisoformat(signer["time"]) + timedelta(days=826)).isoformat()
    for time in (late, "never"):
        log = both.logs()[0]
        rewritten(log, lambda events, time=time: [{**event, "time": time} for event in events])
        with pytest.raises(ConfigError, match=f"line 1: .* not in force at {re.escape(time)}"):
            requests(root)


def test_a_renewed_certificate(both: Both, root: Path) -> None:
    """It comes with the next request, and the authority has signed both."""
    renew(root / "study")
    both.server._keys = open_keys(root / "study")
    both.take(both.ask())
    assert signed(requests(root)) == ["1", "1"]


def test_a_request_that_could_not_be_read(both: Both, root: Path) -> None:
    """Its run and round are not known at the site, which says so, and signs that."""
    audit = Audit(both.site, "train", both.keys)
    both.take(both.answer(audit, Reply(site="a", status="failed", code="protocol")))
    assert signed(replies(root)) == ["2"]


@pytest.mark.parametrize(("head", "signature", "good"), [("", "", True), ("0" * 64, "", False), ("", "AAAA", False)])
def test_a_site_without_a_log_signs_nothing(both: Both, root: Path, head: str, signature: str, good: bool) -> None:
    reply = Reply(site="a", status="declined", code="audit", head=head, signature=signature)
    assert both.server.is_signed("train", 1, "a", reply) == good
    if good:
        both.server.log_reply("train", 1, "a", reply)
        assert signed(replies(root)) == ["1"]


def test_what_earlier_versions_wrote_is_unsigned(root: Path, run_config: Callable[..., RunConfig]) -> None:
    """And a run of theirs goes on, with signatures from then on."""
    (root / "study/runs").mkdir()
    with both_ends(run(root), run_config()) as both:
        for said in (replies(root), requests(root)):
            assert re.search(r": unsigned \w+, which prove nothing to anybody else: 1$", said)
        both.server._keys, both.keys = open_keys(root / "study"), site_keys(root / "a")
        both.take(both.ask())
        for said in (replies(root), requests(root)):
            assert signed(said) == ["1"] and said.endswith("else: 1")


@pytest.mark.parametrize("content", [b"", b"ecdsa-sha2-nistp384 AAAA", b"-----BEGIN CERTIFICATE-----\n", b"PK\x03"])
def test_keys_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content + b"\n")
    with pytest.raises(ConfigError, match="keys: "):
        read_trust([tmp_path / "keys"])
