"""What the other end signed convinces a third person; what it did not sign is found, whoever wrote the log anew."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from both_ends import Both, both_ends
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import RecordDict
from small_federation import provisioned
from telephone import admit_told

from client.link.join import join
from client.round.audit import Audit, SiteKeys
from client.round.audit_command import audit_command as at_site
from server.provisioning.certificates import load_authority
from server.provisioning.provision import renew
from server.round.audit_command import audit_command as at_server
from server.round.run_keys import open_keys
from shared.audit import audit_file, read_audit
from shared.chain import Chain, digest
from shared.config import RunConfig
from shared.keys import fingerprint, new_key, public_line, read_public
from shared.messages import MessageError, Reply, Request
from shared.parse import ConfigError
from shared.signatures import Trust, check_signatures, read_trust, sign

Event = dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation's folder study, and that of its hospital a, which was admitted; and another federation's."""
    root = tmp_path_factory.mktemp("federation")
    for name in ("root", "other"):
        provisioned(root / name, "name: study\naddress: localhost:8443\nsites: [a, z]\n")
    join(root / "root/study/kits/a.zip", root / "root/a")
    admit_told(root / "root/a/a.request.json", root / "root/study")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy")) / "root"


@pytest.fixture
def both(root: Path, run_config: Callable[..., RunConfig]) -> Iterator[Both]:
    """A run in the federation's folder, whose site has prepared."""
    (root / "study/runs").mkdir()
    with both_ends(root / "study/runs/one", run_config(), open_keys(root / "study"), site_keys(root / "a")) as made:
        yield made


def site_keys(folder: Path) -> SiteKeys:
    key: Any = load_ssh_private_key((folder / "site.key").read_bytes(), None)
    authority = load_authority(folder.parent / "study")
    assert authority is not None
    return SiteKeys(key, authority.certificate)


def trust(root: Path) -> Trust:
    """What a hospital has from its kit, and from its own folder."""
    return read_trust([root / "study/kits/a.zip", root / "a/site.key.pub"])


def run(root: Path) -> Path:
    return root / "study/runs/one"


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
    join(root / "study/kits/a.zip", root / "a2")
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


@pytest.mark.parametrize("other", [{"signature": ""}, {"certificate": ""}, {"run_id": "s"}, {"weights": b"others"}])
def test_a_site_does_nothing_that_it_was_not_asked_for(both: Both, root: Path, other: dict[str, Any]) -> None:
    """Whoever reads inside the TLS connection could alter a request. It is noted, and is no claim on the server."""
    with pytest.raises(MessageError, match="the request to a is not signed by the federation's server"):
        both.ask(**other)
    assert both.logs()[0].events()[-1]["event"] == "request"
    assert signed(requests(root)) == ["1"]


def test_a_request_to_another_site(both: Both) -> None:
    with pytest.raises(MessageError, match="not signed"):
        both.ask(site="z")


def test_a_server_of_another_authority(both: Both, root: Path, tmp_path: Path) -> None:
    both.server._keys = open_keys(root.parent / "other/study")
    with pytest.raises(MessageError, match="not signed"):
        both.ask()


def test_a_renewed_certificate(both: Both, root: Path) -> None:
    """It comes with the next request, and the authority has signed both."""
    renew(root / "study")
    both.server._keys = open_keys(root / "study")
    both.take(both.ask())
    assert signed(requests(root)) == ["1", "1"]


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
        both.server.answered("train", 1, "a", reply)
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


def test_a_key_that_is_not_there_is_no_key(both: Both, root: Path) -> None:
    reply = both.ask()
    (root / "study/sites/a/key.pub").write_text("damaged")
    assert not both.server.is_signed("train", 1, "a", reply)
    (root / "study/sites/a/key.pub").unlink()
    assert not both.server.is_signed("train", 1, "a", reply)


@pytest.mark.parametrize("content", [b"", b"ecdsa-sha2-nistp384 AAAA", b"-----BEGIN CERTIFICATE-----\n", b"PK\x03"])
def test_keys_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content + b"\n")
    with pytest.raises(ConfigError, match="keys: "):
        read_trust([tmp_path / "keys"])


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
