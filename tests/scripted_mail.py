"""Mail to two nodes whose replies, losses and absences a script gives; what the server does is written down."""

import hashlib
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from clock import Clock
from flwr.app import Error, Message, RecordDict
from flwr.clientapp import ClientApp

from gliofed.server.round.answers import Absent
from gliofed.server.round.mail import Mail, Unanswered
from gliofed.server.round.pulling import Pulled
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.simulation.grid import LocalGrid

NODES = (1, 2)
LIMIT, RETRY = 100.0, 3.0
"""Seconds."""
LETTERS = {
    "a": "the newest request is answered",
    "o": "the oldest one that has no answer is",
    "d": "both are, in one look",
    "f": "the newest one ended with an error that is no loss",
    "l": "the newest one's program was ended",
    "c": "the node went away with the oldest one",
    "p": "the probe is answered",
    "e": "the probe is lost",
    "w": "nothing comes for longer than RETRY",
    "g": "the node leaves, or is back",
    "u": "the next message to it cannot be sent",
    "x": "the node is expelled",
}
"""What happens at one look, after the number of the node; where there is no such message, nothing."""
ERRORS = {"f": 2, "l": 8, "c": 5, "e": 3}


@dataclass
class Wire:
    """The grid, its pulls, the audit log and what the server knows of the nodes, all of one script."""

    script: Sequence[str]
    clock: Clock
    done: list[str] = field(default_factory=list)
    """What was sent, noted, slept and answered, in order."""
    requests: dict[int, list[str]] = field(default_factory=lambda: {node: [] for node in NODES})
    probes: dict[int, list[str]] = field(default_factory=lambda: {node: [] for node in NODES})
    away: set[int] = field(default_factory=set)
    unsent: set[int] = field(default_factory=set)
    expelled: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._steps, self._ids = iter(self.script), count(1)

    def push_messages(self, messages: list[Message]) -> list[str | None]:
        (message,) = messages
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        if node in self.unsent:
            self.unsent.remove(node)
            self.done.append(f"{kind}>{node} unsent")
            return [None]
        name = f"m{next(self._ids)}"
        (self.probes if kind == "query" else self.requests)[node].append(name)
        self.done.append(f"{kind}>{node} {name} ttl {message.metadata.ttl:.1f}")
        return [name]

    def pull(self, wanted: Sequence[str], sent: int) -> Pulled:
        """One look, which takes a second; after the script there is nothing any more, until the time is over."""
        self.done.append(f"{self.clock.now:.2f} pull {' '.join(wanted)}")
        step = next(self._steps, None)
        if step is None:
            self.clock.now = max(self.clock.now, LIMIT)
            return []
        self.clock.now += 1.0
        found = self._happens(int(step[0]), step[1])
        return [(message, reply) for message, reply in found if message in wanted]

    def _happens(self, node: int, letter: str) -> Pulled:
        if letter == "w":
            self.clock.now += RETRY
        elif letter == "g":
            self.away ^= {node}
        elif letter in "ux":
            (self.unsent if letter == "u" else self.expelled).add(node)
        else:
            names = (self.probes if letter in "pe" else self.requests)[node]
            ends = {"o": [0], "c": [0], "d": [0, -1]}.get(letter, [-1])
            chosen = [names[end] for end in ends] if names else []
            for name in set(chosen):
                names.remove(name)
            self.away |= {node} if letter == "c" and chosen else set()
            return [(name, self._reply(node, letter)) for name in chosen]
        return []

    def _reply(self, node: int, letter: str) -> Message:
        request = Message(_CONTENT, node, "query" if letter in "pe" else "train")
        request.metadata.__dict__["_message_id"] = "of no account"
        return Message(Error(ERRORS[letter]) if letter in ERRORS else _CONTENT, reply_to=request)

    def log_requests(self, kind: str, request: Request, sites: Sequence[str]) -> list[Request]:
        self.done.append(f"note {kind} {' '.join(sites)}")
        return [request] * len(sites)

    def log_reply(self, kind: str, round: int, site: str, reply: Reply) -> None:
        self.done.append(f"note {kind} {site} answered")

    def log_absence(self, kind: str, round: int, site: str, status: str, reason: str) -> None:
        self.done.append(f"note {kind} {site} {status}: {reason}")

    def admitted(self, node: int) -> bool:
        return node not in self.expelled

    def is_signed(self, *_: Any) -> bool:
        return True

    def present(self) -> Collection[int]:
        self.done.append("who is there")
        return set(NODES) - self.away

    def sleep(self, seconds: float) -> None:
        self.done.append(f"sleep {seconds:.2f}")
        self.clock.now += seconds

    def monotonic(self) -> float:
        return self.clock.now


_CONTENT = Reply(site="a", patients=3, head="f" * 64).to_records()


class _Empty(Request):
    """A request whose content nobody reads: making it is most of a script's time."""

    def to_records(self) -> RecordDict:
        return RecordDict()


def ask(wire: Wire, config: RunConfig, make: Callable[[Wire], Mail]) -> Iterator[tuple[int, object]]:
    """The answers to a request to train; all that the server did is in `wire.done`."""
    LocalGrid(ClientApp(), {}, 1, 1.0)  # a Message needs to know who speaks
    request = _Empty(run_id="r", round=1, config=config, weights=b"w")
    for node, answer in make(wire).ask("train", request, NODES):
        wire.done.append(f"{wire.clock.now:.2f} {node}: {_outcome(answer)}")
        yield node, answer


def _outcome(answer: object) -> str:
    if isinstance(answer, Unanswered):
        return f"unanswered {answer.message}"
    return f"{answer.status}: {answer.reason}" if isinstance(answer, Absent) else "reply"


def drawn(seed: int, looks: int = 14) -> list[str]:
    """A script by chance; silence and losses come often, so that a request is sent as often as it may be."""
    rng = random.Random(seed)
    return [f"{rng.choice('12')}{rng.choice('aodfllcpppewwwgux.')}" for _ in range(looks)]


def digest(lines: Iterable[str]) -> str:
    """SHA-256 of what was done, in hex."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
