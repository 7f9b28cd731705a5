"""Answers off Flower's grid, each by the message that it answers as we know it: what a reply says of itself is its
sender's word, and could be another site's.

Flower takes a reply into memory however large it is, and repeats a chunk of an array as often as the array says: a
megabyte could become terabytes. And to the reply that was asked for it adds what a site has sent as the SuperLink, to
the SuperLink: a reply of any site, to whom it likes. So private names of it are replaced, all in this file, which
refuses to run with another Flower.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

import httpx
from flwr.app import Array, Message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.serverapp import Grid
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import get_object_body, get_object_head_values_from_object_content
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, pull_objects

from gliofed.server.round.answers import Absent
from gliofed.shared.flower import other_version
from gliofed.shared.parse import ConfigError

UNREADABLE = Absent("failed", "its reply could not be read")
WAIT = 0.1
"""Seconds for what comes at once."""
PATIENCE, PAUSE = 60.0, 2.0
"""Seconds for which the SuperLink may fail over one message, and between two tries."""
SLACK, RECORDS = 4 * 2**20, 2**20
"""Bytes by which a reply may be larger than the model that was sent, as an update is in fp32 with its scales; and bytes
of it that are not the update's own: what a site says in numbers and words is a few thousand."""

_MOST = ContextVar("most", default=SLACK)
"""Bytes of a reply that the thread which pulls it takes."""
_INFLATING = threading.Lock()

Pulled = list[tuple[str, Message | Absent]]
"""By the id of the message that was sent."""


def pull_together(grid: Grid, messages: Sequence[str], _: int) -> Pulled:
    """The replies that are there, where every end is this program's own: in one process, or on Ray."""
    return [(reply.metadata.reply_to_message_id, reply) for reply in grid.pull_messages(list(messages))]


class SeparatePulls:
    """Each in a thread of its own, across machines.

    Flower's pull blocks while parts of a reply are missing, for minutes, and raises over one that is malformed. So does
    the SuperLink, which stores a reply whose time is NaN and fails whenever it is asked for. None of it must cost
    another site anything.
    """

    def __init__(self, grid: Grid) -> None:
        """Pull from `grid`."""
        self._grid = grid
        self._going: dict[str, Future[list[Message | Absent]]] = {}
        self._most = SLACK
        if reason := other_version("replies are known to be kept apart"):
            raise ConfigError(reason)
        _replace_names()

    def __call__(self, messages: Sequence[str], sent: int) -> Pulled:
        """Return the replies that are there. Raises what is the SuperLink's fault, and no site's.

        No reply is taken that is larger than the largest model that was `sent`, in bytes, by more than SLACK.
        """
        self._most = max(self._most, sent + SLACK)
        for message in messages:
            if message not in self._going:
                self._going[message] = Future()
                work = (message, self._going[message])
                # A daemon, which the end of the program does not wait for.
                threading.Thread(target=self._pull, args=work, daemon=True).start()
        end, found = time.monotonic() + WAIT, Pulled()
        for message in messages:
            if wait([self._going[message]], max(0.0, end - time.monotonic())).done:
                found += [(message, reply) for reply in self._going.pop(message).result()[:1]]
        return found

    def _pull(self, message: str, replies: Future[list[Message | Absent]]) -> None:
        _MOST.set(self._most)
        try:
            replies.set_result(self._patiently(message))
        except (httpx.HTTPError, FlowerError, OSError) as error:
            replies.set_exception(error)
        except Exception:  # of reading what a site has sent
            replies.set_result([UNREADABLE])

    def _patiently(self, message: str) -> list[Message | Absent]:
        """Pull, for a while also over failures of the SuperLink: it may have been starting, or busy."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return list(self._grid.pull_messages([message]))
            except httpx.HTTPStatusError as error:
                if not error.response.is_server_error:
                    raise
                if time.monotonic() >= end:  # one that is down gives no answer at all, so it is this reply's fault
                    return [UNREADABLE]
            time.sleep(PAUSE)


@cache
def _replace_names() -> None:
    """Put our limits around Flower's own names, once in a process; a simulation does not load what is loaded here."""
    import flwr.superlink.grid.http_grid as http_grid
    from flwr.supercore.runtime import RuntimeHttpClient

    RuntimeHttpClient.PullMessages = _answers(RuntimeHttpClient.PullMessages)  # type: ignore[method-assign]
    vars(http_grid).update(pull_objects=_pull_parts, inflate_object_from_contents=_inflate)


def _pull_parts(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
    lock, size, most = threading.Lock(), 0, _MOST.get()

    def pull_one(object_id: str) -> bytes:
        nonlocal size
        content = pull_object_fn(object_id)
        with lock:  # some come at once
            size += len(content)
        if size > most:
            raise ValueError(f"a reply of over {most} bytes")
        return content

    return pull_objects(object_ids, pull_one)


def _inflate(object_id: str, contents: dict[str, bytes]) -> Any:
    """Make a message of its parts; of one at a time, for it takes some times the reply's size."""
    with _INFLATING:
        _check(contents, _MOST.get())
        return inflate_object_from_contents(object_id, contents)


def _answers(pull_messages: Callable[..., Any]) -> Callable[..., Any]:
    """Flower's own pull, without what answers nothing."""

    @wraps(pull_messages)
    def pull(client: Any, request: Any) -> Any:
        found = pull_messages(client, request)
        for place in reversed(range(len(found.messages_list))):
            # Of a reply the SuperLink has checked this, and whatever else was sent to it has none.
            if found.messages_list[place].metadata.reply_to_message_id not in request.message_ids:
                del found.messages_list[place], found.message_object_trees[place]
        return found

    return pull


def _check(contents: Mapping[str, bytes], most: int) -> None:
    """Refuse what would become larger than `most` bytes in memory; `contents` are of Flower's objects, by their ids."""
    records = arrays = 0
    for content in contents.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        if kind == ArrayChunk.__qualname__:
            continue
        records += len(content)
        if records > RECORDS:
            raise ValueError(f"a reply with records of over {RECORDS} bytes")
        if kind == Array.__qualname__:
            chunks = json.loads(get_object_body(content, Array))["arraychunk_ids"]  # places among the children
            arrays += sum(len(contents[children[place]]) for place in chunks)
    if arrays > most:
        raise ValueError(f"a reply with arrays of over {most} bytes")
