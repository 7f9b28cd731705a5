"""What moves a question to a site from state to state, and that the loop around it does what it did."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from clock import Clock
from scripted_mail import LETTERS, LIMIT, RETRY, Wire, ask, digest, drawn

import gliofed.server.round.mail
from gliofed.server.round.answers import Absent
from gliofed.server.round.mail import Mail, Unanswered
from gliofed.server.round.question import MOST_SENDS, MOVES, Event, Question, State
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply

RECORDED = json.loads((Path(__file__).parent / "recorded_mail.json").read_text())
"""What the loop did before it had states, at 033c8bf: whole for schedules with a name, hashed for those by chance."""
ORACLE = """
A new question becomes pending when it was sent, answered when it could not be.
A pending one becomes answered by an answer, lost by a loss, probed by silence, late at the deadline.
A probed one becomes answered by an answer, lost-probed by a loss, idle when the site is free, pending again when it is
free and may not be asked once more, pending again when the probe is lost, late at the deadline.
An idle one becomes pending when it was sent, answered by an answer, lost by a loss, late at the deadline.
A lost one becomes pending when it was sent, answered when it could not be, and stays lost at the deadline.
A lost-probed one becomes probed when it was sent, answered when it could not be, lost when the site is free, lost when
the probe is lost, lost at the deadline.
"""
PHRASES = {
    "when it was sent": Event.SENT,
    "when it could not be": Event.ANSWER,
    "by an answer": Event.ANSWER,
    "by a loss": Event.LOSS,
    "by silence": Event.SILENCE,
    "when the site is free": Event.FREE,
    "when it is free and may not be asked once more": Event.SPENT,
    "when the probe is lost": Event.PROBE_LOST,
    "at the deadline": Event.DEADLINE,
}


def in_sentences() -> dict[tuple[State, Event], State]:
    """The table, read out of ORACLE."""
    table = {}
    for sentence in " ".join(ORACLE.split()).rstrip(".").split(". "):
        start, moves = sentence.replace(", and stays", ", ").split(" becomes ")
        for move in moves.split(", "):
            to, phrase = move.replace("pending again", "pending").split(maxsplit=1)
            table[State(start.split()[1]), PHRASES[phrase]] = State(to)
    return table


def test_the_table_is_what_the_sentences_say() -> None:
    assert in_sentences() == MOVES


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_each_move(state: State, event: Event) -> None:
    """All of the table, and nothing beside it."""
    question = Question(1, state)
    assert question.can(event) == ((state, event) in in_sentences())
    if question.can(event):
        question.move(event)
        assert question.state is in_sentences()[state, event]
    else:
        with pytest.raises(KeyError):
            question.move(event)


def test_a_question_ends_as_answered_late_or_lost() -> None:
    """At the latest at the deadline, whatever happened before; and an end is no beginning."""
    assert {State.NEW, *MOVES.values()} == set(State)
    assert {state for state, _ in MOVES} == set(State) - {State.ANSWERED, State.LATE}
    ends = {to for (_, event), to in MOVES.items() if event in (Event.ANSWER, Event.DEADLINE)}
    assert ends == {State.ANSWERED, State.LATE, State.LOST}
    assert all((state, Event.DEADLINE) in MOVES for state, _ in MOVES if state is not State.NEW)


@pytest.mark.parametrize("error", [None, 2, 3, 5, 8])
@pytest.mark.parametrize("lossy", [True, False])
@pytest.mark.parametrize("sends", [1, MOST_SENDS])
@pytest.mark.parametrize("others", [set(), {"older"}])
def test_which_event_a_message_is(error: int | None, lossy: bool, sends: int, others: set[str]) -> None:
    """A loss of one of several, or of the last that may be sent, moves nothing or ends it; else it is sent again."""
    question = Question(1, State.PENDING, {"newest", *others}, "newest", sends)
    event = question.came("newest", error, lossy, 5.0)
    if not lossy or error in (None, 2):
        assert event is Event.ANSWER
    elif others:
        assert event is None and question.state is State.PENDING
    else:
        assert event is (Event.LOSS if sends < MOST_SENDS or error == 5 else Event.ANSWER)
    assert question.sends == sends - (lossy and error == 5)  # a pulled cable uses up no ask
    assert question.since == 0 and question.open == others


@pytest.mark.parametrize(
    ("error", "sends", "event"), [(None, 1, "free"), (None, MOST_SENDS, "spent"), (3, 1, "probe-lost")]
)
def test_which_event_a_probe_is(error: int | None, sends: int, event: str) -> None:
    question = Question(1, State.PROBED, {"m"}, "m", sends, probe="p")
    assert question.came("p", error, True, 5.0) is Event(event)
    assert (question.probe, question.since, question.awaited) == ("", 5.0, ["m"])


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wire], Mail]:
    monkeypatch.setattr(gliofed.server.round.mail, "SeparatePulls", lambda wire: wire.pull)  # which replaces Flower's
    named = lambda node: "?ab"[node]  # noqa: E731
    return lambda wire: Mail(wire, wire, LIMIT, RETRY, named, wire.present, wire.admitted, wire)  # type: ignore[arg-type]


Make = Callable[[Wire], Mail]


@pytest.mark.parametrize("name", RECORDED["named"])
def test_a_schedule_goes_as_it_did(name: str, make: Make, run_config: Callable[..., RunConfig]) -> None:
    """Each message, wait, line of the log and answer, with its time."""
    wire = Wire(RECORDED["named"][name]["script"], Clock())
    list(ask(wire, run_config(), make))
    assert wire.done == RECORDED["named"][name]["done"]


def test_schedules_by_chance_go_as_they_did(make: Make, run_config: Callable[..., RunConfig]) -> None:
    config = run_config()
    for block, expected in enumerate(RECORDED["drawn"]):
        done = []
        for seed in range(20 * block, 20 * block + 20):
            wire = Wire(drawn(seed), Clock())
            list(ask(wire, config, make))
            done += wire.done
        assert digest(done) == expected, f"one of the schedules {20 * block} to {20 * block + 19}"


def scripts() -> Iterator[list[str]]:
    """All of three things that happen to one node after it was silent, before the other one answers."""
    for letters in product(LETTERS.keys() - {"f", "x"}, repeat=3):  # which end it at once
        yield ["1w", *(f"1{letter}" for letter in letters), "2a"]


@pytest.mark.slow
def test_each_question_ends_once_and_no_answer_counts_twice(make: Make, run_config: Callable[..., RunConfig]) -> None:
    config = run_config()
    for script in scripts():
        wire = Wire(script, Clock())
        answers = list(ask(wire, config, make))
        assert sorted(node for node, _ in answers) == [1, 2], script
        assert all(isinstance(answer, Reply | Absent | Unanswered) for _, answer in answers)
        sent = [line for line in wire.done if line.startswith("train>1 m")]
        assert len(sent) <= MOST_SENDS + sum(step[1] == "c" for step in script), script
