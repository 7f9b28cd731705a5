"""Requests out and answers in, over Flower's grid; between machines, what was lost is asked for again.

Flower says that a node went away or that a program at it was ended, and it says so of a reply whose parts did not all
arrive. It is silent where a node could not take a request whole, or could not announce its reply: that node is idle,
and the server would wait until the deadline. A node takes its messages one after the other, in the order in which they
were sent. So a site that is silent for `retry` seconds is asked to prepare, which is cheap; if that is answered first,
what was sent before is lost. Asking again is harmless: a site answers the same request with the bytes that it stored.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from flwr.app import Message
from flwr.serverapp import Grid

from gliofed.server.round.answers import AWAY, EXPELLED, LOST, NO_REPLY, UNSIGNED, Absent, flower_error
from gliofed.server.round.audit import RunAudit
from gliofed.server.round.pulling import UNREADABLE, SeparatePulls, TogetherPulls
from gliofed.shared.messages import LATE, MessageError, Reply, Request

Kind = Literal["query", "train", "evaluate"]
WORD: dict[str, str] = {"query": "prepare", "train": "train", "evaluate": "evaluate"}
"""Kinds of message as the audit logs call them: Flower's query is what a site knows as prepare."""
POLL, LONGEST_POLL = 0.1, 2.0
"""Seconds between two looks for answers, and a fiftieth of the wait in between. A grid in this process waits by itself
and is not slowed by it."""
MOST_ASKS = 3
"""How often a site gets one request, where answers may be lost."""


@dataclass(frozen=True)
class Unanswered:
    """A site's time is over; the answer to this message may come yet. None: the engine has given the site up."""

    message: str | None


Answer = Reply | Absent | Unanswered


@dataclass
class _Question:
    """A request to one node, until there is an answer."""

    node: int
    open: set[str] = field(default_factory=set)
    """Messages with it that may still be answered."""
    newest: str = ""
    asks: int = 0
    since: float = 0.0
    """When anything was sent last."""
    probe: str = ""
    """Message by which the site is asked whether it is free; empty: there is none."""
    again: bool = False
    """Whether it must be sent again, as soon as the node is there."""
    lost: Absent | None = None
    """What became of the last message, if it was lost."""


class Mail:
    """What is sent and received in one run; the audit log notes all of it."""

    def __init__(
        self, grid: Grid, audit: RunAudit, limit: float, retry: float | None, name_of: Callable[[int], str]
    ) -> None:
        """Wait `limit` seconds for an answer; after `retry` silent ones ask whether the site is free. None: never, for
        nothing is lost on this grid.
        """
        self._grid, self._audit, self._limit, self._retry, self._name_of = grid, audit, limit, retry, name_of
        self._pull = TogetherPulls(grid) if retry is None else SeparatePulls(grid)

    def ask(
        self,
        kind: Kind,
        request: Request,
        nodes: Sequence[int],
        present: Callable[[], Collection[int]],
        admitted: Callable[[int], bool],
    ) -> Iterator[tuple[int, Answer]]:
        """Ask nodes and yield each answer as it arrives.

        `present` tells who may be asked at a moment. Nobody waits for one that is not `admitted` any more.
        """
        questions = {node: _Question(node) for node in nodes}
        began = time.monotonic()
        end = began + self._limit
        if questions:
            yield from self._send(kind, request, questions, nodes, end)
        while questions:
            over = time.monotonic() >= end  # looked at first: what came in time counts
            replies = self._pull(_awaited(questions), len(request.weights))
            for message, reply in replies:
                yield from self._take(kind, request, questions, message, reply)
            for node in [node for node in questions if not admitted(node)]:
                del questions[node]
                yield node, EXPELLED
            if over:
                break
            if self._retry is not None:
                again = [node for node, question in questions.items() if question.again]
                here = present() if again else ()
                yield from self._send(kind, request, questions, [node for node in again if node in here], end)
                self._probe(request, questions, self._retry)
            if questions and not replies:
                time.sleep(min(LONGEST_POLL, max(POLL, (time.monotonic() - began) / 50)))
        for question in questions.values():
            if question.open or question.lost is None:
                yield question.node, Unanswered(question.newest)
            else:
                yield question.node, question.lost

    def late(self, messages: Mapping[str, int], round_of: Callable[[int], int]) -> Iterator[tuple[int, bool]]:
        """Look for answers that are too late to count, by message and node; yield each node and whether it answered.

        An error of ours is no answer: the engine has given the site up.
        """
        for message, reply in self._pull(list(messages)) if messages else ():
            node = messages[message]
            answered = not _given_up(reply)
            if answered:  # noted like any other, since the site's log has its receipt
                word, round = _word(reply), round_of(node)
                self.note(word, round, node, self._read(word, round, node, reply))
            yield node, answered

    def note(self, word: str, round: int, node: int, answer: Reply | Absent) -> None:
        """Write an answer into the audit log, before anything is made of it."""
        if isinstance(answer, Reply):
            self._audit.answered(word, round, self._name_of(node), answer)
        else:
            self._audit.absent(word, round, self._name_of(node), answer.status, answer.reason)

    def _send(
        self, kind: Kind, request: Request, questions: dict[int, _Question], nodes: Sequence[int], end: float
    ) -> Iterator[tuple[int, Answer]]:
        names = [self._name_of(node) for node in nodes]
        requests = self._audit.asked(WORD[kind], request, names) if nodes else []
        for node, addressed in zip(nodes, requests, strict=True):
            question = questions[node]
            # Who comes back after the end must not train a round that is closed.
            sent = self._push(kind, addressed, node, end - time.monotonic() + 60)
            if sent is None:
                del questions[node]
                yield node, Absent("failed", "the request could not be sent")
                continue
            question.open.add(sent)
            question.newest, question.asks, question.again = sent, question.asks + 1, False
            question.since = time.monotonic()

    def _push(self, kind: Kind, request: Request, node: int, ttl: float) -> str | None:
        message = Message(request.to_records(), node, kind, group_id=str(request.round), ttl=ttl)
        sent = list(self._grid.push_messages([message]))
        return sent[0] if sent and sent[0] else None

    def _take(
        self, kind: Kind, request: Request, questions: dict[int, _Question], message: str, reply: Message | Absent
    ) -> Iterator[tuple[int, Answer]]:
        """Read one message that came; yield the answer, if it is one."""
        question = next((each for each in questions.values() if message in (*each.open, each.probe)), None)
        if question is None:  # the second answer to one request
            return
        error = reply.error.code if isinstance(reply, Message) and reply.has_error() else None
        if message == question.probe:
            question.probe, question.since = "", time.monotonic()
            answer = self._read(WORD["query"], request.round, question.node, reply)
            self.note(WORD["query"], request.round, question.node, answer)
            if error is None:  # it is free, though what was sent before has no answer
                self._lose(kind, request, question, NO_REPLY)
            return
        question.open.discard(message)
        if self._retry is not None and error in LOST:
            question.asks -= error == AWAY  # a cable that is pulled often is not its fault; the deadline ends it
            if question.asks < MOST_ASKS and not question.open:
                self._lose(kind, request, question, flower_error(error))
            if question.asks < MOST_ASKS or question.open:
                return
        del questions[question.node]
        if _given_up(reply):
            yield question.node, Unanswered(None)
        else:
            yield question.node, self._read(WORD[kind], request.round, question.node, reply)

    def _read(self, word: str, round: int, node: int, reply: Message | Absent) -> Reply | Absent:
        if isinstance(reply, Absent):
            return reply
        if reply.has_error():
            return flower_error(reply.error.code)
        try:
            found = Reply.from_records(reply.content)
        except MessageError:
            return UNREADABLE
        return found if self._audit.is_signed(word, round, self._name_of(node), found) else UNSIGNED

    def _lose(self, kind: Kind, request: Request, question: _Question, why: Absent) -> None:
        self.note(WORD[kind], request.round, question.node, why)
        question.lost, question.again = why, question.asks < MOST_ASKS

    def _probe(self, request: Request, questions: Mapping[int, _Question], retry: float) -> None:
        """Ask the silent ones to prepare; a probe that a busy site does not fetch in time is never delivered."""
        for question in questions.values():
            silent = question.open and not question.probe and time.monotonic() - question.since > retry
            if silent and not question.again and question.asks < MOST_ASKS:
                names = [self._name_of(question.node)]
                (empty,) = self._audit.asked(WORD["query"], replace(request, weights=b""), names)
                question.probe = self._push("query", empty, question.node, 2 * retry) or ""
                question.since = time.monotonic()


def _awaited(questions: Mapping[int, _Question]) -> list[str]:
    return [message for each in questions.values() for message in (*sorted(each.open), each.probe) if message]


def _given_up(reply: Message | Absent) -> bool:
    return isinstance(reply, Message) and reply.has_error() and reply.error.code == LATE


def _word(reply: Message | Absent) -> str:
    return WORD.get(reply.metadata.message_type, "unknown") if isinstance(reply, Message) else "unknown"
