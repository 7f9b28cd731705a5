"""Asking sites over Flower's grid: who is there, what they answer, and what is said when they do not."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from flwr.app import Message
from flwr.serverapp import Grid

from server.audit import RunAudit
from shared.config import RunConfig
from shared.messages import CODES, LATE, MessageError, Reply, Request
from shared.parse import is_site_name

Kind = Literal["query", "train", "evaluate"]
_WORD: dict[str, str] = {"query": "prepare", "train": "train", "evaluate": "evaluate"}
"""Kinds of message as the audit logs call them: Flower's query is what a site knows as prepare."""
SLACK = 2.0  # seconds by which the server waits longer: an engine that gives a site up says so first
POLL = 0.1  # seconds; a grid in this process waits by itself and is not slowed by it

FLOWER_ERRORS = {
    1: "the site's app could not be loaded",
    2: "the site's program failed",
    3: "the request was not there any more",
    4: "its reply was not there any more",
    5: "the site went away",
    7: "the site did not approve this code",
    8: "the site's program was ended",
}
"""Flower's error codes in words; the reason that came with one is not repeated: it may quote a file's name."""


@dataclass(frozen=True)
class Absent:
    """Why a site has no reply that could count."""

    status: Literal["declined", "failed", "missing", "late", "not_asked"]
    reason: str


class Sites:
    """The sites of a federation, by name."""

    def __init__(
        self, grid: Grid, config: RunConfig, run_id: str, waves: int, names: Mapping[int, str], audit: RunAudit
    ) -> None:
        """Ask over `grid`; sites that share a machine take turns, `waves` of them; `names` are known beforehand."""
        self._grid, self._config, self._run_id, self._audit = grid, config, run_id, audit
        self._limit = config.round.deadline * waves + SLACK
        self._known, self._names = dict(names), dict(names)
        self._late: dict[int, tuple[str | None, int]] = {}  # node -> its unanswered message, and of which round
        self.cohorts: dict[str, int] = {}
        """Training patients that each prepared site was admitted with."""

    def wait(self) -> None:
        """Wait until the expected sites, or else a quorum, are connected; `round.join` seconds at most."""
        wanted = len(self._config.round.expected) or self._config.round.quorum
        end = time.monotonic() + self._config.round.join
        while len(list(self._grid.get_node_ids())) < wanted and time.monotonic() < end:
            time.sleep(POLL)

    def roll(self, round: int) -> tuple[dict[str, int], dict[str, Absent]]:
        """Return the nodes of the sites that can be asked, and why the others can not; new nodes are prepared first."""
        self._forgive()
        nodes = sorted(self._grid.get_node_ids())
        new = {node: node for node in nodes if self._names.get(node) not in self.cohorts and node not in self._late}
        absent: dict[str, Absent] = {}
        request = Request(run_id=self._run_id, round=round, config=self._config)
        for node, answer in self._ask("query", request, new):
            absent |= self._admit(node, answer, nodes)
            self._note(_WORD["query"], round, node, answer)
        ready: dict[str, int] = {}
        for node in nodes:
            name = self._names.get(node)
            if node in self._late:
                absent.setdefault(name or f"node-{node}", self._still(node, round))
            elif name in self.cohorts:
                ready[name] = node
        for name in {*self._config.round.expected, *self.cohorts} - ready.keys() - absent.keys():
            absent[name] = Absent("missing", "not connected")
        return dict(sorted(ready.items())), absent

    def ask(self, kind: Kind, request: Request, nodes: Mapping[str, int]) -> Iterator[tuple[str, Reply | Absent]]:
        """Ask sites and yield each answer as it arrives; who has not answered at the deadline is late."""
        for node, answer in self._ask(kind, request, {node: node for node in nodes.values()}):
            name = self._names[node]
            if isinstance(answer, Reply) and answer.status == "ok" and answer.site != name:
                answer = Absent("failed", "it answered under another name")
            self._note(_WORD[kind], request.round, node, answer)
            yield name, answer

    def _ask(self, kind: Kind, request: Request, nodes: Mapping[int, int]) -> Iterator[tuple[int, Reply | Absent]]:
        waiting: dict[str, int] = {}
        if nodes:
            names = [self._name(node) for node in nodes]
            request = replace(request, head=self._audit.asked(_WORD[kind], request, names))
        for node in nodes:
            message = Message(request.to_records(), node, kind, group_id=str(request.round), ttl=self._limit + 60)
            sent = list(self._grid.push_messages([message]))
            if sent:
                waiting[sent[0]] = node
            else:
                yield node, Absent("failed", "the request could not be sent")
        end = time.monotonic() + self._limit
        while waiting and time.monotonic() < end:
            replies = list(self._grid.pull_messages(list(waiting)))
            for reply in replies:
                node = waiting.pop(reply.metadata.reply_to_message_id)
                if reply.has_error() and reply.error.code == LATE:
                    self._late[node] = (None, request.round)
                    yield node, self._still(node, request.round)
                else:
                    yield node, _read(reply)
            if waiting and not replies:
                time.sleep(POLL)
        for message_id, node in waiting.items():
            self._late[node] = (message_id, request.round)
            yield node, self._still(node, request.round)

    def _admit(self, node: int, answer: Reply | Absent, nodes: list[int]) -> dict[str, Absent]:
        """Learn a node's name and cohort from its first answer; return why it cannot take part, if so."""
        if isinstance(answer, Absent):
            return {self._names.get(node, f"node-{node}"): answer}
        if node in self._known and (answer.status != "ok" or answer.site != self._known[node]):
            other = Absent("failed", "it answered under another name")
            return {self._known[node]: other if answer.status == "ok" else refusal(answer)}
        if not is_site_name(answer.site):
            nameless = Absent("failed", "its name is not letters, digits, dots, dashes or underscores")
            return {f"node-{node}": nameless if answer.status == "ok" else refusal(answer)}
        if any(self._names.get(other) == answer.site for other in nodes if other != node):
            return {f"node-{node}": Absent("failed", f"another node already answers as {answer.site}")}
        self._names[node] = answer.site
        if answer.status != "ok":
            return {answer.site: refusal(answer)}
        self.cohorts[answer.site] = answer.patients
        return {}

    def _name(self, node: int) -> str:
        return self._names.get(node, f"node-{node}")

    def _note(self, kind: str, round: int, node: int, answer: Reply | Absent) -> None:
        """Write an answer into the audit log, before anything is made of it."""
        if isinstance(answer, Reply):
            self._audit.answered(kind, round, self._name(node), answer)
        else:
            self._audit.absent(kind, round, self._name(node), answer.status, answer.reason)

    def _still(self, node: int, round: int) -> Absent:
        """What to say of a node with an unanswered message: late if it is of this round, else not asked again."""
        since = self._late[node][1]
        if since == round:
            return Absent("late", f"no answer within round.deadline={self._config.round.deadline:g} s")
        return Absent("not_asked", f"has not answered since round {since}")

    def _forgive(self) -> None:
        """Ask again whom a late answer has come from; the answer itself is too late to count.

        An error is no answer: the engine has given the site up.
        """
        asked = {message_id: node for node, (message_id, _) in self._late.items() if message_id}
        for reply in self._grid.pull_messages(list(asked)) if asked else ():
            node = asked[reply.metadata.reply_to_message_id]
            if reply.has_error() and reply.error.code == LATE:
                self._late[node] = (None, self._late[node][1])
            else:
                # Noted like any other, since the site's log has its receipt.
                word = _WORD.get(reply.metadata.message_type, "unknown")
                self._note(word, self._late[node][1], node, _read(reply))
                del self._late[node]


def refusal(reply: Reply) -> Absent:
    """Put a site's code into words, with what its check left out."""
    counts = ", ".join(f"{count} {code}" for code, count in sorted(reply.left_out.items()))
    reason = CODES[reply.code] + (f" (left out: {counts})" if counts else "")
    return Absent("declined" if reply.status == "declined" else "failed", reason)


def _read(message: Message) -> Reply | Absent:
    if message.has_error():
        return Absent("failed", FLOWER_ERRORS.get(message.error.code, f"Flower's error {message.error.code}"))
    try:
        return Reply.from_records(message.content)
    except MessageError:
        return Absent("failed", "its reply could not be read")
