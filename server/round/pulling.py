"""Answers off Flower's grid, each by the message that it answers as we know it: what a reply says of itself is its
sender's word, and could be another site's.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.error import FlowerError

from server.round.answers import Absent

UNREADABLE = Absent("failed", "its reply could not be read")
WAIT = 0.1
"""Seconds for what comes at once."""
PATIENCE, PAUSE = 60.0, 2.0
"""Seconds for which the SuperLink may fail over one message, and between two tries."""

Pulled = list[tuple[str, Message | Absent]]
"""By the id of the message that was sent."""


class TogetherPulls:
    """All at once, where every end is this program's own: in one process, or on Ray."""

    def __init__(self, grid: Grid) -> None:
        """Pull from `grid`, which waits a moment by itself."""
        self._grid = grid

    def __call__(self, messages: Sequence[str]) -> Pulled:
        """Return the replies that are there."""
        return [(reply.metadata.reply_to_message_id, reply) for reply in self._grid.pull_messages(list(messages))]


class SeparatePulls:
    """Each in a thread of its own, across machines.

    Flower's pull blocks while parts of a reply are missing, for minutes, and raises over one that is malformed. So does
    the SuperLink, which stores a reply whose time is NaN and fails whenever it is asked for. None of it must cost
    another site anything.
    """

    def __init__(self, grid: Grid) -> None:
        """Pull from `grid`."""
        self._grid = grid
        self._going: dict[str, _Pull] = {}

    def __call__(self, messages: Sequence[str]) -> Pulled:
        """Return the replies that are there. Raises what is the SuperLink's fault, and no site's."""
        for message in messages:
            if message not in self._going:
                self._going[message] = _Pull()
                work = (message, self._going[message])
                # A daemon, which the end of the program does not wait for.
                threading.Thread(target=self._pull, args=work, daemon=True).start()
        end, found = time.monotonic() + WAIT, Pulled()
        for message in messages:
            pull = self._going[message]
            if pull.done.wait(max(0.0, end - time.monotonic())):
                del self._going[message]
                if pull.error is not None:
                    raise pull.error
                found += [(message, reply) for reply in pull.replies[:1]]
        return found

    def _pull(self, message: str, pull: "_Pull") -> None:
        try:
            pull.replies = self._patiently(message)
        except (httpx.HTTPError, FlowerError, OSError) as error:
            pull.error = error
        except Exception:  # of reading what a site has sent
            pull.replies = [UNREADABLE]
        finally:
            pull.done.set()

    def _patiently(self, message: str) -> list[Message | Absent]:
        """Pull, for a while also over failures of the SuperLink: it may have been starting, or busy."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return list(self._grid.pull_messages([message]))
            except httpx.HTTPStatusError as error:
                if not error.response.is_server_error:
                    raise
                if time.monotonic() >= end:  # a SuperLink that is down does not answer; this one fails over this reply
                    return [UNREADABLE]
            time.sleep(PAUSE)


@dataclass
class _Pull:
    """One that goes on."""

    done: threading.Event = field(default_factory=threading.Event)
    replies: list[Message | Absent] = field(default_factory=list)
    error: Exception | None = None
