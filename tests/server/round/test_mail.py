"""Replies that are lost between machines: the same site is asked again, and one answer counts."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
from clock import Clock
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

import gliofed.server.round.mail
from gliofed.server.round.answers import Absent
from gliofed.server.round.asking import Federation, Sites
from gliofed.server.round.audit import RunAudit, hold_audit
from gliofed.server.round.pulling import Pulled, SeparatePulls
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import read_chain
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.simulation.grid import LocalGrid

A, B = 1, 2
NAMES = {A: "a", B: "b"}


@dataclass
class Wire:
    """Two sites, which take their messages in order, as SuperNodes do, and a wire that loses what a test says.

    `losses` are of trainings, in order: a code is what Flower says in place of the answer, None is silence.
    """

    losses: list[int | None] = field(default_factory=list)
    busy: int = 0
    """Looks for which the sites are busy before they take a message."""
    away: int = 0
    """Looks for which site a is not connected after a loss with code 5."""
    trained: list[int] = field(default_factory=list)
    probes: int = 0
    sent: list[Message] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    answered: dict[str, Message] = field(default_factory=dict)
    """By the message that was sent."""
    spoilt: Callable[[list[Message]], list[Message]] | None = None
    """What becomes of a's trained replies on their way to the server."""
    gone: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Each message is pulled by a thread of its own."""

    def __post_init__(self) -> None:
        LocalGrid(ClientApp(), {}, 1, 1.0)  # a Message needs to know who speaks

    def get_node_ids(self) -> list[int]:
        self.gone -= 1
        return [B] if self.gone > 0 else [A, B]

    def push_messages(self, messages: list[Message]) -> list[str]:
        (message,) = messages
        message.metadata.__dict__["_message_id"] = f"message-{id(message)}"
        self.inbox.append(message)
        self.sent.append(message)
        return [message.metadata.message_id]

    def pull_messages(self, wanted: list[str]) -> list[Message]:
        with self.lock:
            self.busy -= 1
            if self.busy < 0:
                for message in [each for each in self.inbox if self.gone <= 0 or each.metadata.dst_node_id == B]:
                    self.inbox.remove(message)
                    self._work(message)
            replies = [self.answered.pop(message) for message in wanted if message in self.answered]
        trained = [each for each in replies if (each.metadata.message_type, each.metadata.src_node_id) == ("train", A)]
        return self.spoilt(replies) if self.spoilt and trained else replies

    def _work(self, message: Message) -> None:
        name = NAMES[message.metadata.dst_node_id]
        answer = Message(Reply(site=name, patients=3, head="f" * 64).to_records(), reply_to=message)
        if message.metadata.message_type == "train":
            self.trained.append(message.metadata.dst_node_id)
            if name == "a" and self.losses:
                if (code := self.losses.pop(0)) is None:
                    return
                self.gone = self.away if code == 5 else 0
                answer = Message(Error(code), reply_to=message)
        else:
            self.probes += 1
        self.answered[message.metadata.message_id] = answer


class PullsInTurn:
    """In the place of SeparatePulls, for what is lost and asked again: without threads, which take real time."""

    def __init__(self, grid: Wire) -> None:
        self._grid = grid

    def __call__(self, messages: Sequence[str], sent: int = 0) -> Pulled:
        return [(message, reply) for message in messages for reply in self._grid.pull_messages([message])]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(gliofed.server.round.mail, "SeparatePulls", PullsInTurn)
    return Clock()


@pytest.fixture
def ask(tmp_path: Path, run_config: Callable[..., RunConfig], clock: Clock) -> Callable[..., dict[str, Reply | Absent]]:
    """Train at both sites over a wire; the answers by site, of which there is one each."""

    def train(wire: Wire, lossy: bool = True) -> dict[str, Reply | Absent]:
        config = run_config("round.expected=[a,b]", "round.deadline=300", "round.retry=3")
        with hold_audit(tmp_path) as audit:
            sites = _sites(wire, config, audit, clock, lossy)
            nodes, absent = sites.roll(1)
            assert not absent
            wire.probes = 0
            answers = list(sites.ask("train", Request(run_id="r", round=1, config=config, weights=b"w"), nodes))
        assert len(answers) == 2
        return dict(answers)

    return train


def _sites(wire: Wire, config: RunConfig, audit: RunAudit, clock: Clock, lossy: bool = True) -> Sites:
    federation = Federation(config=config, out=Path(), run_id="r", names=lambda: NAMES, lossy=lossy)
    return Sites(wire, federation, audit, clock=clock)  # type: ignore[arg-type]


Ask = Callable[..., dict[str, Reply | Absent]]


@pytest.mark.parametrize("code", [3, 4, 5, 8])
def test_a_reply_that_flower_calls_lost_is_asked_for_again(ask: Ask, code: int) -> None:
    wire = Wire(losses=[code])
    answers = ask(wire)
    assert isinstance(answers["a"], Reply)
    assert sorted(wire.trained) == [A, A, B]


def test_a_site_that_went_away_is_asked_when_it_is_back(ask: Ask) -> None:
    wire = Wire(losses=[5], away=10)
    answers = ask(wire)
    assert isinstance(answers["a"], Reply)
    assert wire.trained.count(A) == 2


def test_a_cable_that_is_pulled_often_uses_up_no_ask(ask: Ask) -> None:
    """The deadline ends that; a site that fails by itself is asked three times."""
    assert isinstance(ask(Wire(losses=[5] * 5, away=2))["a"], Reply)


def test_a_site_that_stays_away_is_not_waited_for_in_later_rounds(ask: Ask) -> None:
    """It has no unanswered message, so it is no site that hangs: it may come back in any round."""
    answers = ask(Wire(losses=[5], away=10**9))
    assert answers["a"] == Absent("failed", "the site went away")


def test_a_request_is_asked_three_times_at_most(ask: Ask) -> None:
    wire = Wire(losses=[8] * 9)
    assert ask(wire)["a"] == Absent("failed", "the site's program was ended")
    assert wire.trained.count(A) == 3


def test_a_reply_that_is_lost_in_silence_shows_when_the_site_answers_something_else(ask: Ask) -> None:
    """Flower says nothing where a node could not announce its reply: the node is idle, and takes what comes next."""
    wire = Wire(losses=[None])
    assert isinstance(ask(wire)["a"], Reply)
    assert wire.trained.count(A) == 2
    assert wire.probes == 1


def test_a_site_that_works_for_long_is_not_asked_again(ask: Ask) -> None:
    """A second answer would be sent for nothing, however large it is; a probe is small."""
    wire = Wire(busy=120)  # looks, which take longer than round.retry
    answers = ask(wire)
    assert all(isinstance(answer, Reply) for answer in answers.values())
    assert sorted(wire.trained) == [A, B]


@pytest.fixture
def separately(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Each message by a thread of its own, as it is between machines; nothing is late while the clock stands."""
    monkeypatch.setattr(gliofed.server.round.mail, "SeparatePulls", SeparatePulls)
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)


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
        sites = _sites(Wire(spoilt=late), config, audit, clock)
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
        def __call__(self, messages: Sequence[str], sent: int = 0) -> Pulled:
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
        federation = Federation(config=config, out=tmp_path, run_id="r", names=lambda: known, lossy=True)
        sites = Sites(wire, federation, audit, clock=clock)  # type: ignore[arg-type]
        nodes, _ = sites.roll(1)
        wire.busy = 10**9
        answers = sites.ask("train", Request(run_id="r", round=1, config=config, weights=b"w"), nodes)
        del known[A]
        assert next(answers) == ("a", Absent("missing", "expelled"))


@pytest.mark.parametrize("code", [1, 2, 7])
def test_a_site_that_failed_is_not_asked_again(ask: Ask, code: int) -> None:
    wire = Wire(losses=[code])
    assert isinstance(ask(wire)["a"], Absent)
    assert wire.trained.count(A) == 1


def test_where_nothing_is_lost_nothing_is_asked_again(ask: Ask) -> None:
    """A simulation asks as it always did: its audit log must not depend on how fast the machine is."""
    wire = Wire(losses=[5], busy=60)
    assert ask(wire, lossy=False)["a"] == Absent("failed", "the site went away")
    assert wire.trained.count(A) == 1
    assert wire.probes == 0


def test_the_audit_log_has_every_time_that_a_site_was_asked(ask: Ask, tmp_path: Path) -> None:
    """Else a site's log could have requests that the server's knows nothing of."""
    ask(Wire(losses=[8]))
    events = read_chain(audit_file(tmp_path), "", None).events()
    of_a = [(event["event"], event["kind"]) for event in events if event["site"] == "a"]
    assert of_a[:2] == [("request", "prepare"), ("reply", "prepare")]
    assert of_a[2:] == [("request", "train"), ("absent", "train"), ("request", "train"), ("reply", "train")]


def test_a_node_that_is_no_admitted_sites_is_not_asked(
    tmp_path: Path, run_config: Callable[..., RunConfig], clock: Clock
) -> None:
    """Across hospitals a node is who its key says, not who it says; a site that is admitted later joins later."""
    wire, known = Wire(), {A: "a"}
    with hold_audit(tmp_path) as audit:
        federation = Federation(
            config=run_config("round.expected=[a,b]"), out=tmp_path, run_id="r", names=lambda: known
        )
        sites = Sites(wire, federation, audit, clock=clock)  # type: ignore[arg-type]
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
        federation = Federation(
            config=run_config("round.expected=[b]"), out=tmp_path, run_id="r", names=lambda: {A: "b"}
        )
        sites = Sites(Wire(), federation, audit, clock=clock)  # type: ignore[arg-type]
        nodes, absent = sites.roll(1)
    assert nodes == {}
    assert absent["b"].reason == "it answered under another name"
