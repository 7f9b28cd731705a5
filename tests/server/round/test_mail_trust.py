"""What a site sends is not trusted: whose answer a reply is, and what becomes of the others' if it cannot be read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import pytest
from clock import Clock
from flwr.app import Message
from lossy_wire import NAMES, A, Ask, B, PullsInTurn, Wire, sites_over

import gliofed.server.round.mail
import gliofed.server.round.sites
from gliofed.server.round.answers import Absent
from gliofed.server.round.audit import hold_audit
from gliofed.server.round.pulling import Pulled
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import read_chain
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request


def test_a_reply_that_flower_cannot_read_costs_its_own_site_alone(ask: Ask, separately: None) -> None:
    """A site can send parts that are no message; Flower raises while it puts them together."""

    def spoil(replies: list[Message]) -> list[Message]:
        raise IndexError("list index out of range")

    answers = ask(Wire(spoilt=spoil))
    assert answers["a"] == Absent("failed", "its reply could not be read")
    assert isinstance(answers["b"], Reply)


def test_a_reply_whose_parts_do_not_come_costs_no_other_site_and_not_more_than_the_deadline(
    tmp_path: Path, run_config: Callable[..., RunConfig], clock: Clock, separately: None
) -> None:
    """Flower's pull waits for them, for hours if a site sends one now and then."""
    came = Event()

    def late(replies: list[Message]) -> list[Message]:
        came.wait()
        return replies

    config = run_config("round.expected=[a,b]", "round.deadline=300", "round.retry=3")
    with hold_audit(tmp_path) as audit:
        sites = sites_over(Wire(spoilt=late), config, audit, clock)
        request = Request(run_id="r", round=1, config=config, weights=b"w")
        answers = sites.ask("train", request, sites.roll(1)[0])
        site, answer = next(answers)
        assert (site, type(answer)) == ("b", Reply)
        clock.now += 303  # and SLACK
        site, answer = next(answers)
        assert (site, type(answer)) == ("a", Absent)
    came.set()


def test_a_reply_may_be_as_large_as_the_model_that_was_sent(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much larger is test_pulling's."""
    sizes = []

    class Pulls(PullsInTurn):
        def __call__(self, messages: Sequence[str], sent: int) -> Pulled:
            sizes.append(sent)
            return super().__call__(messages, sent)

    monkeypatch.setattr(gliofed.server.round.mail, "SeparatePulls", Pulls)
    ask(Wire())
    assert set(sizes) == {0, len(b"w")}  # to prepare, to train


@pytest.mark.parametrize("forged", ["", "message-of-another", "question-of-b"])
def test_what_a_reply_says_of_itself_is_not_believed(ask: Ask, separately: None, tmp_path: Path, forged: str) -> None:
    """Which message it answers, which kind it is and where it is from are its sender's words."""
    wire = Wire()

    def forge(replies: list[Message]) -> list[Message]:
        (reply,) = replies
        of_b = next(each.metadata.message_id for each in wire.sent if each.metadata.dst_node_id == B)
        reply.metadata.__dict__["_reply_to_message_id"] = of_b if forged == "question-of-b" else forged
        reply.metadata.__dict__["_src_node_id"] = B
        return replies

    wire.spoilt = forge
    assert {name: answer.site for name, answer in ask(wire).items() if isinstance(answer, Reply)} == {
        "a": "a",
        "b": "b",
    }
    events = read_chain(audit_file(tmp_path), "", None).events()
    assert sorted(event["site"] for event in events if (event["event"], event["kind"]) == ("reply", "train")) == [
        "a",
        "b",
    ]


def test_nobody_waits_for_a_site_that_is_expelled_while_it_works(
    tmp_path: Path, run_config: Callable[..., RunConfig], clock: Clock
) -> None:
    wire, known = Wire(), dict(NAMES)
    config = run_config("round.expected=[a,b]")
    with hold_audit(tmp_path) as audit:
        sites = sites_over(wire, config, audit, clock, names=lambda: known)
        nodes, _ = sites.roll(1)
        wire.busy = 10**9
        answers = sites.ask("train", Request(run_id="r", round=1, config=config, weights=b"w"), nodes)
        del known[A]
        assert next(answers) == ("a", Absent("missing", "expelled"))


def test_a_node_that_is_no_admitted_sites_is_not_asked(
    tmp_path: Path, run_config: Callable[..., RunConfig], clock: Clock
) -> None:
    """Across hospitals a node is who its key says, not who it says; a site that is admitted later joins later."""
    wire, known = Wire(), {A: "a"}
    with hold_audit(tmp_path) as audit:
        sites = sites_over(wire, run_config("round.expected=[a,b]"), audit, clock, False, lambda: known)
        assert sites.roll(1)[0] == {"a": A}
        assert wire.probes == 1
        known[B] = "b"
        assert sites.roll(2)[0] == {"a": A, "b": B}
        del known[A]
        assert sites.roll(3)[0] == {"b": B}


def test_a_node_cannot_answer_as_another_site(
    tmp_path: Path, run_config: Callable[..., RunConfig], clock: Clock
) -> None:
    """The node has b's key, and says that it is a."""
    with hold_audit(tmp_path) as audit:
        sites = sites_over(Wire(), run_config("round.expected=[b]"), audit, clock, False, lambda: {A: "b"})
        nodes, absent = sites.roll(1)
    assert nodes == {}
    assert absent["b"].reason == "it answered under another name"
