"""The sites that are connected, by name; their answers, and why one has none."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

from flwr.serverapp import Grid

from gliofed.server.round.answers import EXPELLED, NOT_ADMITTED, NOT_CONNECTED, NOT_INVITED, RESTS, Absent, refusal
from gliofed.server.round.audit import RunAudit
from gliofed.server.round.mail import AUDIT_KINDS, POLL, Clock, Kind, Mail, Unanswered
from gliofed.server.round.progress import Phase, RoundProgress
from gliofed.server.round.run_keys import RunKeys
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import is_site_name
from gliofed.shared.seeding import seed_of

PHASES: dict[Kind, tuple[Phase, str]] = {
    "query": ("preparing", "prepared"),
    "train": ("training", "trained"),
    "evaluate": ("evaluating", "evaluated"),
}
"""What sites do when they are asked, and what those have done that answered."""
SLACK = 2.0  # seconds by which the server waits longer: an engine that gives a site up says so first


@dataclass(frozen=True, kw_only=True)
class Federation:
    """One run at the aggregator: what is asked, of whom, and how it gets there."""

    config: RunConfig
    """Where round.expected names sites, nothing is sent to any other."""
    out: Path
    """The run's folder; a run that is there goes on."""
    run_id: str
    waves: int = 1
    """Turns that the sites take, where they share a machine."""
    names: Callable[[], Mapping[int, str]] | None = None
    """Which site each node is now; who is not in there is not asked. None: the nodes say it, when they prepare."""
    agreed: Callable[[], Mapping[str, int]] = dict
    """The most patients of each site that may count; of one that is not in there, what it says when it prepares."""
    lossy: bool = False
    """Whether what is on its way may be lost, as it may between machines; then it is asked for again."""
    page: bool = False
    """Whether report.html is drawn anew after every round."""
    keys: RunKeys | None = None
    """What requests are signed with, and replies checked by. None: nobody has keys."""


class Sites:
    """The sites of a federation, by name."""

    def __init__(
        self, grid: Grid, federation: Federation, audit: RunAudit, progress: RoundProgress, clock: Clock = time
    ) -> None:
        """Ask over `grid`; `progress` shows who is asked, and who answers."""
        self._grid, self._progress, self._config, self._clock = grid, progress, federation.config, clock
        self._run_id, self._listed, self._agreed = federation.run_id, federation.names, federation.agreed
        timing = federation.config.round
        limit = timing.deadline * federation.waves + SLACK
        retry = (timing.retry or timing.deadline / 10) if federation.lossy else None
        self._mail = Mail(grid, audit, limit, retry, self._name, self._nodes, self.admitted, clock)
        self._known: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._late: dict[int, tuple[str | None, int]] = {}  # node -> its unanswered message, and of which round
        self._there: set[int] | None = None
        """Nodes that were connected at the last roll; None: there was none yet."""
        self.cohorts: dict[int, int] = {}
        """Training patients that each node said when it was asked to prepare."""

    def roll(self, round: int, train: bool = False) -> tuple[dict[str, int], dict[str, Absent]]:
        """Return the nodes of the sites that can be asked, and why the others can not; new nodes are prepared first.

        It waits for who is not connected, for `round.join` seconds at most. To `train`, only who is drawn is waited
        for and asked.
        """
        self._progress.enter(round, "waiting")
        end = self._clock.monotonic() + self._config.round.join
        while self._some_are_away(round if train else None) and self._clock.monotonic() < end:
            self._clock.sleep(POLL)
        self._look_for_late_answers()
        connected = self._connected()
        nodes = self._invited(connected)
        new = [node for node in nodes if node not in self.cohorts and node not in self._late]
        absent: dict[str, Absent] = {}
        request = Request(run_id=self._run_id, round=round, config=self._config)
        for node, answer in self._ask("query", request, new):
            absent |= self._admit(node, answer, nodes)
            self._mail.log_answer(AUDIT_KINDS["query"], round, node, answer)
        nodes = self._invited(nodes)  # whoever had no name yet has one now
        self._there = set(nodes)
        absent |= {self._names[node]: NOT_INVITED for node in set(connected).difference(nodes)}
        ready: dict[str, int] = {}
        for node in nodes:
            name = self._names.get(node)
            if node in self._late:
                absent.setdefault(name or f"node-{node}", self._lateness(node, round))
            elif name and node in self.cohorts:
                ready[name] = node
        prepared = {self._names[node] for node in self.cohorts}
        for name in {*self._config.round.expected, *prepared} - ready.keys() - absent.keys():
            gone = EXPELLED if name in self._names.values() else NOT_ADMITTED
            absent[name] = NOT_CONNECTED if self._is_admitted(name) else gone
        if train and self._config.round.sample is not None:
            drawn = self.drawn(round)
            absent |= dict.fromkeys(drawn - ready.keys() - absent.keys(), NOT_CONNECTED)
            absent |= dict.fromkeys(self._participants() - drawn, RESTS)
            ready = {name: node for name, node in ready.items() if name in drawn}
        return dict(sorted(ready.items())), absent

    def drawn(self, round: int) -> set[str]:
        """The sites that train in a round: with round.sample those of the smallest hashes of seed, round and name.

        So it matters neither who is connected nor what an earlier server of the run has asked.
        """
        names, seed = self._participants(), self._config.seed
        by_chance = sorted(names, key=lambda name: (seed_of(seed, "sample", round, name), name))
        return set(by_chance[: self._config.round.training(len(names))])

    def _participants(self) -> set[str]:
        """Every site of the run, there or not: of round.expected, or known; but for who was expelled."""
        names = set(self._config.round.expected or self._names.values())
        return {name for name in names if self._is_admitted(name)}

    def ask(self, kind: Kind, request: Request, nodes: Mapping[str, int]) -> Iterator[tuple[str, Reply | Absent]]:
        """Ask sites and yield each answer as it arrives; who has not answered at the deadline is late."""
        for node, answer in self._ask(kind, request, nodes.values()):
            name = self._names[node]
            if isinstance(answer, Reply) and answer.status == "ok" and answer.site != name:
                answer = Absent("failed", "it answered under another name")
            self._mail.log_answer(AUDIT_KINDS[kind], request.round, node, answer)
            yield name, answer

    def admitted(self, node: int) -> bool:
        """Whether a node may take part still: its key may be shut out after it has answered."""
        return self._listed is None or node in self._listed()

    def agreed(self, node: int) -> int | None:
        """The most patients of a prepared node that may count, where a number was agreed."""
        return self._agreed().get(self._names[node])

    def ceiling(self, node: int) -> int:
        """The same; where none was agreed, what it said when it prepared, up to the median of the agreed ones."""
        if (agreed := self.agreed(node)) is not None:
            return agreed
        others = self._agreed().values()
        return min(self.cohorts[node], median_low(others)) if others else self.cohorts[node]

    def _is_admitted(self, name: str) -> bool:
        return self._listed is None or name in self._known.values()

    def _some_are_away(self, training: int | None) -> bool:
        """Whether to wait: at first for the expected sites, or else a quorum; then for who was there at the last roll.

        So a site that does not come back holds the run up once. Nobody waits for who was expelled, nor for who is not
        drawn where the roll is for the `training` of a round.
        """
        nodes = self._nodes()
        drawn = self._participants() if training is None else self.drawn(training)
        if self._there is None:
            if not (wanted := drawn.intersection(self._config.round.expected)):
                return len(nodes) < self._config.round.quorum
            nameless = sum(node not in self._names for node in nodes)  # they may be any of those
            return len(wanted.difference(self._names[node] for node in nodes if node in self._names)) > nameless
        gone = [node for node in self._there.difference(nodes) if self._listed is None or node in self._known]
        return any(node not in self._names or self._names[node] in drawn for node in gone)

    def _nodes(self) -> list[int]:
        """The nodes that are connected and may be asked."""
        return self._invited(self._connected())

    def _invited(self, nodes: Collection[int]) -> list[int]:
        """Those of round.expected, if that names any; a node without a name yet is asked once, to prepare."""
        expected = self._config.round.expected
        return [node for node in nodes if not expected or self._names.get(node, expected[0]) in expected]

    def _connected(self) -> list[int]:
        """The nodes that are connected and may connect."""
        nodes = sorted(self._grid.get_node_ids())
        if self._listed is None:
            return nodes
        self._known = dict(self._listed())
        self._names |= self._known
        return [node for node in nodes if node in self._known]

    def _ask(self, kind: Kind, request: Request, nodes: Collection[int]) -> Iterator[tuple[int, Reply | Absent]]:
        """Ask nodes and yield each answer; who looks at the progress sees it too."""
        phase, done = PHASES[kind]
        if nodes:
            self._progress.enter(request.round, phase, [self._name(node) for node in nodes])
        for node, answer in self._mail.ask(kind, request, list(nodes)):
            if isinstance(answer, Unanswered):
                self._late[node] = (answer.message, request.round)
                answer = self._lateness(node, request.round)
            elif isinstance(answer, Reply) and answer.status == "ok" and not answer.head:
                answer = Absent("failed", "its reply names no line of its audit log")
            self._progress.answer(self._name(node), done if answer.status == "ok" else answer.status)
            yield node, answer

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
        if not self._invited([node]):
            return {}
        if answer.status != "ok":
            return {answer.site: refusal(answer)}
        self.cohorts[node] = answer.patients
        return {}

    def _name(self, node: int) -> str:
        return self._names.get(node, f"node-{node}")

    def _lateness(self, node: int, round: int) -> Absent:
        """Why a node with an unanswered message has no reply: late if it is of this round, else not asked again."""
        since = self._late[node][1]
        if since == round:
            return Absent("late", f"no answer within round.deadline={self._config.round.deadline:g} s")
        return Absent("not_asked", f"has not answered since round {since}")

    def _look_for_late_answers(self) -> None:
        """Ask again whom a late answer has come from; the answer itself is too late to count."""
        waiting = {message: (node, round) for node, (message, round) in self._late.items() if message}
        for node, answered in list(self._mail.late(waiting)):
            if answered:
                del self._late[node]
            else:
                self._late[node] = (None, self._late[node][1])
