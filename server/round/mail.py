"""Requests out and answers in, over Flower's grid; between machines, what was lost is asked for again.

Flower says that a node went away or that a program at it was ended, and it says so of a reply whose parts did not all
arrive. It is silent where a node could not take a request whole, or could not announce its reply: that node is idle,
and the server would wait until the deadline. A node takes its messages one after the other, in the order in which they
were sent. So a site that is silent for `retry` seconds is asked to prepare, which is cheap; if that is answered first,
what was sent before is lost. Asking again is harmless: a site answers the same request with the bytes that it stored.
`gliofed.server.round.question` has the states in between.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from gliofed.server.round.answers import EXPELLED, NO_REPLY, UNSIGNED, Absent, flower_error
from gliofed.server.round.audit import RunAudit
from gliofed.server.round.pulling import UNREADABLE, Pulled, SeparatePulls, pull_together
from gliofed.server.round.question import Event, Question, State
from gliofed.shared.messages import LATE, MessageError, Reply, Request

Kind = Literal["query", "train", "evaluate"]
AUDIT_KINDS: dict[str, str] = {"query": "prepare", "train": "train", "evaluate": "evaluate"}
"""Kinds of message as the audit logs call them: Flower's query is what a site knows as prepare."""
POLL, LONGEST_POLL = 0.1, 2.0
"""Seconds between two looks for answers, and a fiftieth of the wait in between. A grid in this process waits by itself
and is not slowed by it."""


class Clock(Protocol):
    """The module `time`, or what stands for it; in seconds."""

    def monotonic(self) -> float: ...  # noqa: D102
    def sleep(self, seconds: float, /) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Unanswered:
    """A site's time is over; the answer to this message may come yet. None: the engine has given the site up."""

    message: str | None


Answer = Reply | Absent | Unanswered


@dataclass
class Mail:
    """What is sent and received in one run; the audit log notes all of it."""

    grid: Grid
    audit: RunAudit
    limit: float
    """Seconds to wait for an answer."""
    retry: float | None
    """Silent seconds after which to ask whether a site is free; None: never, for nothing is lost on this grid."""
    name_of: Callable[[int], str]
    present: Callable[[], Collection[int]]
    """The nodes that may be asked at this moment."""
    admitted: Callable[[int], bool]
    """Whether to wait for a node any more."""
    clock: Clock = time

    def __post_init__(self) -> None:
        """Choose how answers are pulled."""
        self._pull: Callable[[Sequence[str], int], Pulled] = (
            partial(pull_together, self.grid) if self.retry is None else SeparatePulls(self.grid)
        )

    def ask(self, kind: Kind, request: Request, nodes: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """Ask nodes and yield each answer as it arrives."""
        questions = {node: Question(node) for node in nodes}
        began = self.clock.monotonic()
        end = began + self.limit
        if questions:
            yield from self._send(kind, request, questions, nodes, end)
        while questions:
            over = self.clock.monotonic() >= end  # looked at first: what came in time counts
            awaited = [message for question in questions.values() for message in question.awaited]
            replies = self._pull(awaited, len(request.weights))
            for message, reply in replies:
                yield from self._take(kind, request, questions, message, reply)
            for node in [node for node in questions if not self.admitted(node)]:
                questions.pop(node).move(Event.ANSWER)
                yield node, EXPELLED
            if over:
                break
            if self.retry is not None:
                again = [node for node, question in questions.items() if question.can(Event.SENT)]
                here = self.present() if again else ()
                yield from self._send(kind, request, questions, [node for node in again if node in here], end)
                self._probe(request, questions.values(), self.retry)
            if questions and not replies:
                self.clock.sleep(min(LONGEST_POLL, max(POLL, (self.clock.monotonic() - began) / 50)))
        for node, question in questions.items():
            question.move(Event.DEADLINE)
            yield node, question.loss if question.loss and question.state is State.LOST else Unanswered(question.newest)

    def late(self, messages: Mapping[str, tuple[int, int]]) -> Iterator[tuple[int, bool]]:
        """Look for answers that are too late to count, to messages of a node and a round each.

        Yields each node and whether it answered; an error of ours is no answer: the engine has given the site up.
        """
        for message, reply in self._pull(list(messages), 0) if messages else ():
            node, round = messages[message]
            answered = not _given_up(reply)
            if answered:  # in the log like any other, since the site's log has its receipt
                kind = AUDIT_KINDS.get(reply.metadata.message_type) if isinstance(reply, Message) else None
                self._log_read(kind or "unknown", round, node, reply)
            yield node, answered

    def log_answer(self, kind: str, round: int, node: int, answer: Reply | Absent) -> None:
        """Write an answer into the audit log, before anything is made of it."""
        if isinstance(answer, Reply):
            self.audit.log_reply(kind, round, self.name_of(node), answer)
        else:
            self.audit.log_absence(kind, round, self.name_of(node), answer.status, answer.reason)

    def _send(
        self, kind: Kind, request: Request, questions: dict[int, Question], nodes: Sequence[int], end: float
    ) -> Iterator[tuple[int, Answer]]:
        """Ask nodes, also once more; yield whom nothing can be sent to."""
        for node, message in self._push(kind, request, nodes, end + 60):
            if message:
                questions[node].sent(message, self.clock.monotonic())
            else:
                questions.pop(node).move(Event.ANSWER)
                yield node, Absent("failed", "the request could not be sent")

    def _push(self, kind: Kind, request: Request, nodes: Sequence[int], until: float) -> Iterator[tuple[int, str]]:
        """Note a request and send it to nodes; yield each with its message, which is empty where it was not taken.

        It is not delivered after `until`: who comes back later must not train a round that is closed.
        """
        names = [self.name_of(node) for node in nodes]
        requests = self.audit.log_requests(AUDIT_KINDS[kind], request, names) if nodes else []
        for node, addressed in zip(nodes, requests, strict=True):
            ttl = until - self.clock.monotonic()
            message = Message(addressed.to_records(), node, kind, group_id=str(request.round), ttl=ttl)
            sent = list(self.grid.push_messages([message]))
            yield node, sent[0] or "" if sent else ""

    def _take(
        self, kind: Kind, request: Request, questions: dict[int, Question], message: str, reply: Message | Absent
    ) -> Iterator[tuple[int, Answer]]:
        """Read one message that came; yield the answer, if it is one."""
        question = next((each for each in questions.values() if message in each.awaited), None)
        if question is None:  # the second answer to one request
            return
        node, error = question.node, reply.error.code if isinstance(reply, Message) and reply.has_error() else None
        logged = AUDIT_KINDS[kind]
        if is_probe := message == question.probe:
            self._log_read(AUDIT_KINDS["query"], request.round, node, reply)
        event = question.came(message, error, self.retry is not None, self.clock.monotonic())
        if event in (Event.LOSS, Event.FREE, Event.SPENT):
            question.loss = NO_REPLY if is_probe or error is None else flower_error(error)
            self.log_answer(logged, request.round, node, question.loss)
        elif event is Event.ANSWER:
            del questions[node]
            yield node, Unanswered(None) if _given_up(reply) else self._read(logged, request.round, node, reply)

    def _log_read(self, kind: str, round: int, node: int, reply: Message | Absent) -> None:
        self.log_answer(kind, round, node, self._read(kind, round, node, reply))

    def _read(self, kind: str, round: int, node: int, reply: Message | Absent) -> Reply | Absent:
        if isinstance(reply, Absent):
            return reply
        if reply.has_error():
            return flower_error(reply.error.code)
        try:
            found = Reply.from_records(reply.content)
        except MessageError:
            return UNREADABLE
        return found if self.audit.is_signed(kind, round, self.name_of(node), found) else UNSIGNED

    def _probe(self, request: Request, questions: Collection[Question], retry: float) -> None:
        """Ask the silent ones to prepare; a probe that a busy site does not fetch in time is never delivered."""
        for question in questions:
            if question.is_silent(now := self.clock.monotonic(), retry):
                empty = replace(request, weights=b"")
                ((_, probe),) = self._push("query", empty, [question.node], now + 2 * retry)
                question.probed(probe, self.clock.monotonic())


def _given_up(reply: Message | Absent) -> bool:
    return isinstance(reply, Message) and reply.has_error() and reply.error.code == LATE
