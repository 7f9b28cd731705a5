"""A wire between two sites and the server, which loses what a test says."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clock import Clock
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from gliofed.server.round.answers import Absent
from gliofed.server.round.audit import RunAudit
from gliofed.server.round.progress import RoundProgress
from gliofed.server.round.pulling import Pulled
from gliofed.server.round.sites import Federation, Sites
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply
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

    def __call__(self, messages: Sequence[str], sent: int) -> Pulled:
        return [(message, reply) for message in messages for reply in self._grid.pull_messages([message])]


def sites_over(
    wire: Wire,
    config: RunConfig,
    audit: RunAudit,
    clock: Clock,
    lossy: bool = True,
    names: Callable[[], dict[int, str]] = lambda: NAMES,
) -> Sites:
    federation = Federation(config=config, out=Path(), run_id="r", names=names, lossy=lossy)
    return Sites(wire, federation, audit, RoundProgress(1), clock=clock)  # type: ignore[arg-type]


Ask = Callable[..., dict[str, Reply | Absent]]
