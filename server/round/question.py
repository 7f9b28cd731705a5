"""One request to one node, until there is an answer: its states, and the table of what moves it between them."""

from dataclasses import dataclass, field
from enum import Enum

from gliofed.server.round.answers import AWAY, LOST, Absent

MOST_SENDS = 3
"""How often a site gets one request, where answers may be lost."""


class State(Enum):
    """Where a question stands; it ends as ANSWERED, LATE or LOST."""

    NEW = "new"  # nothing was sent yet
    PENDING = "pending"  # an answer is awaited
    PROBED = "probed"  # the site was silent, and was sent a probe: both answers are awaited
    IDLE = "idle"  # the site answered the probe alone: send again, though the first answer may come yet
    LOST = "lost"  # no answer can come: send again
    LOST_PROBED = "lost-probed"  # the same, and the answer to the probe is awaited
    ANSWERED = "answered"
    LATE = "late"  # the time is over, and the answer may come yet


class Event(Enum):
    """What happens to a question."""

    SENT = "sent"
    ANSWER = "answer"  # or what counts as one: an error that is no loss, or the last loss of all
    LOSS = "loss"  # of the last message that could be answered, where it may be sent again
    SILENCE = "silence"  # nothing came for long, and a probe was sent
    FREE = "free"  # the probe is answered
    SPENT = "spent"  # it is, and the request was sent as often as it may be
    PROBE_LOST = "probe-lost"
    DEADLINE = "deadline"


TABLE = """
             sent     answer    loss         silence  free  spent    probe-lost  deadline
new          pending  answered  .            .        .     .        .           .
pending      .        answered  lost         probed   .     .        .           late
probed       .        answered  lost-probed  .        idle  pending  pending     late
idle         pending  answered  lost         .        .     .        .           late
lost         pending  answered  .            .        .     .        .           lost
lost-probed  probed   answered  .            .        lost  .        lost        lost
"""
_EVENTS, *_ROWS = [line.split() for line in TABLE.strip().splitlines()]
MOVES = {
    (State(state), Event(event)): State(to)
    for state, *row in _ROWS
    for event, to in zip(_EVENTS, row, strict=True)
    if to != "."
}
"""TABLE, by state and event. A dot is what cannot happen."""


@dataclass
class Question:
    """A request to one node."""

    node: int
    state: State = State.NEW
    open: set[str] = field(default_factory=set)
    """Messages with it that may still be answered."""
    newest: str = ""
    sends: int = 0
    since: float = 0.0
    """When anything was sent last, or a probe was answered."""
    probe: str = ""
    """The message by which the site is asked whether it is free; empty: none is out."""
    loss: Absent | None = None
    """What became of the last message, if it was lost."""

    @property
    def awaited(self) -> list[str]:
        """The messages whose answers are of use."""
        return [*sorted(self.open), *([self.probe] if self.probe else [])]

    def can(self, event: Event) -> bool:
        """Whether an event may happen in this state."""
        return (self.state, event) in MOVES

    def move(self, event: Event) -> None:
        """Take the step that the table has."""
        self.state = MOVES[self.state, event]

    def sent(self, message: str, now: float) -> None:
        """Wait for the answer to a message that has left."""
        self.move(Event.SENT)
        self.open.add(message)
        self.newest, self.since, self.sends = message, now, self.sends + 1

    def probed(self, probe: str, now: float) -> None:
        """Wait for the answer to a probe; an empty one could not be sent."""
        self.probe, self.since = probe, now
        if probe:
            self.move(Event.SILENCE)

    def is_silent(self, now: float, retry: float) -> bool:
        """Whether to send a probe: nothing came for `retry` seconds, and the request may be sent again."""
        return self.can(Event.SILENCE) and self.sends < MOST_SENDS and now - self.since > retry

    def came(self, message: str, error: int | None, lossy: bool, now: float) -> Event | None:
        """Move by what came for a message: a reply, or one of Flower's errors; None where another may still come."""
        event: Event | None = Event.ANSWER
        if message == self.probe:
            self.probe, self.since = "", now
            event = Event.PROBE_LOST if error else Event.FREE if self.sends < MOST_SENDS else Event.SPENT
        else:
            self.open.discard(message)
            if lossy and error in LOST:
                self.sends -= error == AWAY  # a cable that is pulled often is not its fault; the deadline ends it
                event = None if self.open else Event.LOSS if self.sends < MOST_SENDS else Event.ANSWER
        if event:
            self.move(event)
        return event
