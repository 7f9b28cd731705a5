"""A server's and a site's log against each other: what either leaves out, or notes otherwise, shows."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from both_ends import Both, both_ends

import gliofed.shared.messages
from gliofed.client.round.audit import Audit, note
from gliofed.client.round.judge import judge
from gliofed.client.round.policy import reply_key
from gliofed.server.round.audit import RunAudit
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import MessageError, Reply, Request
from gliofed.shared.parse import ConfigError


@pytest.fixture
def both(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Iterator[Both]:
    with both_ends(tmp_path, run_config()) as made:
        yield made


def test_an_undisturbed_round(both: Both) -> None:
    both.server.log_reply("train", 1, "a", both.ask())
    both.server.log_fold(1, ["a"], b"weights")
    both.server.log_reply("evaluate", 1, "a", both.ask("evaluate"))
    both.server.log_end("done")
    assert both.agree() == "a: 3 replies and 3 requests agree with LOG"


@pytest.mark.parametrize(
    "go_on",
    [
        lambda both: both.server.log_fold(1, [], b"weights"),
        lambda both: both.server.log_end("done"),
        lambda both: both.server.log_reply("train", 2, "a", both.ask(round=2)),
        lambda both: both.server.log_reply("evaluate", 1, "a", both.ask("evaluate")),
    ],
)
def test_a_server_that_leaves_a_reply_out(both: Both, go_on: Callable[[Both], None]) -> None:
    """The site's receipt is of a reply that the server must have waited for, and it has gone on without a word."""
    both.ask()
    assert "1 more left the site, of which the server notes no answer" in both.agree()  # it may be on its way
    go_on(both)
    with pytest.raises(ConfigError, match=r"line 6 is a reply that .* lacks"):
        both.agree()


@pytest.mark.parametrize(
    "excuse",
    [
        lambda server: server.log_absence("train", 1, "a", "failed", "its reply did not arrive"),
        lambda server: server.log_start("resume", "r", "hash"),
    ],
)
def test_a_reply_that_was_lost_is_counted(both: Both, excuse: Callable[[RunAudit], None]) -> None:
    """The network lost it, or the server was killed; it is asked for again, and the second one has a receipt too."""
    both.ask()
    excuse(both.server)
    both.server.log_reply("train", 1, "a", both.ask())
    both.server.log_end("done")
    assert both.agree().startswith("a: 2 replies and 3 requests agree with LOG; 1 more left the site")
    size = sum(record["bytes"] for record in both.logs()[0].events()[5]["records"])
    lost = f"no answer, as is usual after a stop or a lost connection: train of round 1, {size} bytes"
    assert size > len(b"update") and both.agree().endswith(lost)


def test_what_was_lost_is_told_by_its_size(both: Both) -> None:
    """A whole update is not drowned in the answers that say that a site is free."""
    both.ask("prepare")
    both.ask(round=2)
    both.ask("prepare", round=2)
    both.ask("prepare", round=2)
    said = both.agree().split("lost connection: ")[1]
    size, first = "([0-9]+) bytes", "prepare of round 1, [0-9]+ bytes"
    found = re.fullmatch(rf"train of round 2, {size}; prepare of round 2, {size} \(2 times\); {first}", said)
    assert found is not None
    update, answer = map(int, found.groups())
    assert update == answer + len(b"update")


@pytest.mark.parametrize("kind", ["prepare", "train"])
def test_whether_a_site_is_free_is_asked_and_not_waited_for(both: Both, kind: str) -> None:
    """The answer that was waited for comes first, and nobody looks for the other one."""
    slow = both.ask(kind, round=2)
    both.ask("prepare", round=2)
    both.server.log_reply(kind, 2, "a", slow)
    both.server.log_end("done")
    assert both.agree().startswith("a: 2 replies and 3 requests agree with LOG; 1 more left the site")


def test_another_sites_absence_is_no_excuse(both: Both) -> None:
    both.ask()
    both.server.log_absence("train", 1, "z", "late", "")
    both.server.log_absence("evaluate", 1, "a", "late", "")
    both.server.log_end("done")
    with pytest.raises(ConfigError, match="lacks"):
        both.agree()


def test_heads_that_are_missing(both: Both) -> None:
    """Either end notes what it got, and the comparison does not hold."""
    reply = both.ask()
    both.server.log_reply("train", 1, "a", replace(reply, head=""))
    with pytest.raises(ConfigError, match="line 7 is a reply that names no line"):
        both.agree()


def test_a_request_without_a_head(both: Both) -> None:
    audit = Audit(both.site, "train", both.keys)
    with pytest.raises(MessageError):
        both.ask(audit=audit, head="")
    both.answer(audit, Reply(site="a", status="declined", code="protocol"))  # with the receipt it is noted
    with pytest.raises(ConfigError, match="line 4 is a request that names no line"):
        both.agree()


def test_a_site_that_cannot_write_its_log_is_said(both: Both) -> None:
    """It has no receipt to name, and nothing left but the code."""
    both.server.log_reply("train", 1, "a", Reply(site="a", status="declined", code="audit"))
    both.server.log_end("incomplete")
    assert both.agree().endswith("; 1 came without a receipt, for the site could not write its log")


def test_weights_that_came_otherwise(both: Both) -> None:
    """What a site trained from is what the server says that it sent."""
    both.ask(weights=both.weights[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"line 4 is not the request of line 6"):
        both.agree()


def test_a_request_that_the_server_notes_of_others_alone(both: Both) -> None:
    both.ask(site="b")
    with pytest.raises(ConfigError, match="is not the request of line"):
        both.agree()


@pytest.mark.parametrize("place", [("train", 2), ("evaluate", 1)])
def test_a_reply_noted_in_another_place(both: Both, place: tuple[str, int]) -> None:
    """Its head alone does not say of which round it is."""
    both.server.log_reply(*place, "a", both.ask())
    with pytest.raises(ConfigError, match="is not the reply of line"):
        both.agree()


def test_weights_are_hashed_once_at_each_end(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are large; sites are many, and some are asked again."""
    hashed: list[bytes] = []
    monkeypatch.setattr(gliofed.shared.messages.hashlib, "sha256", lambda data: (hashed.append(data), sha256(data))[1])
    sent = Request(run_id="r", round=1, config=both.config, weights=both.weights)
    for names in (["a", "b", "c"], ["b"]):
        both.server.log_requests("train", sent, names)
    assert hashed.count(both.weights) == 1
    came = replace(sent, head="0" * 64)
    judge("train", both.site, came, Audit(both.site, "train"))
    reply_key(both.site.policy, came)
    assert hashed.count(both.weights) == 2


@pytest.mark.parametrize(
    ("end", "event", "lacks"),
    [
        ("server", {"event": "start"}, "run_id"),
        ("server", {"event": "reply", "kind": "train", "round": 1, "site": {}}, "bytes, code, head"),
        ("site", {"event": "request", "kind": "train", "round": 1, "run_id": "r"}, "server_head"),
        ("site", {"event": "receipt", "records": [{"name": "update/bytes"}]}, "records"),
        ("site", {"event": ["request"]}, "event"),
    ],
)
def test_a_line_that_lacks_something(both: Both, end: str, event: dict[str, Any], lacks: str) -> None:
    """The chain holds, for the party that is to be checked wrote it itself."""
    both.server.log_reply("train", 1, "a", both.ask())
    if end == "server":
        both.server._log.append(event)
    else:
        note(both.site, event)
    with pytest.raises(ConfigError, match=rf"audit.jsonl: line \d+ lacks .*{lacks}"):
        both.agree()
