"""All sites in this process: `at_once` workers, which are watched, answer for any number of them."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from gliofed.shared.messages import LATE

WAIT = 0.2  # seconds that a pull waits for an answer, instead of the caller


class _Job:
    """A message that a worker answers."""

    def __init__(self, message: Message) -> None:
        self.message, self.since = message, time.monotonic()


class LocalGrid(Grid):
    """Sites in this process, answered by `at_once` workers; one that takes longer than `deadline` seconds is given up.

    A worker is a thread that ends when nothing waits, so that neither sites nor finished work hold memory.
    """

    def __init__(self, app: ClientAppCallable, nodes: Mapping[int, UserConfig], at_once: int, deadline: float) -> None:
        """Make a grid of `nodes`: node id to node config, as Flower gives it to a ClientApp."""
        self._app, self._nodes, self._at_once, self._deadline = app, nodes, at_once, deadline
        self._run = Run.create_empty(run_id=uuid4().int >> 65)
        # A Message asks this private class who speaks.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self._run.run_id, SUPERLINK_NODE_ID
        self._changed = threading.Condition()
        """Held for all below."""
        self._waiting: deque[Message] = deque()
        self._working: dict[int, _Job] = {}
        """By node: a site does one thing at a time."""
        self._workers = 0
        self._given_up: set[int] = set()
        self._replies: dict[str, Message] = {}

    @property
    def hung(self) -> bool:
        """Whether a thread was given up: the process must then be ended without waiting for it."""
        return bool(self._given_up)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let each message wait for a worker."""
        ids = []
        with self._changed:
            for message in messages:
                self._nodes[message.metadata.dst_node_id]  # a KeyError here, and not in a worker
                message.metadata.__dict__["_message_id"] = str(uuid4())
                ids.append(message.metadata.message_id)
                self._waiting.append(message)
            self._start_workers()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; wait a moment for the first."""
        wanted = set(message_ids)
        with self._changed:
            self._give_up_hung()
            self._changed.wait_for(lambda: wanted & self._replies.keys(), timeout=WAIT)
            return [self._replies.pop(message_id) for message_id in sorted(wanted & self._replies.keys())]

    def _start_workers(self) -> None:
        for _ in range(min(self._at_once - self._workers, len(self._waiting))):
            self._workers += 1  # daemon: the interpreter does not wait for it
            threading.Thread(target=self._work, name="worker", daemon=True).start()

    def _work(self) -> None:
        while job := self._next():
            node = job.message.metadata.dst_node_id
            context = Context(self._run.run_id, node, dict(self._nodes[node]), RecordDict(), {})
            reply = answer_or_error(self._app, job.message, context)
            with self._changed:
                if node in self._given_up:  # long ago: another works in its place, and nobody waits for this reply
                    return
                del self._working[node]
                self._replies[job.message.metadata.message_id] = reply
                self._changed.notify_all()
            del reply  # not kept while the next one is made

    def _next(self) -> _Job | None:
        """Take the first message to a site that is free; without one the worker ends."""
        with self._changed:
            for message in self._waiting:
                if (node := message.metadata.dst_node_id) not in self._working:
                    self._waiting.remove(message)
                    self._working[node] = job = _Job(message)
                    return job
            self._workers -= 1
            return None

    def _give_up_hung(self) -> None:
        """Answer for sites that are past the deadline, and let others have their turn."""
        for node, job in self._working.items():
            if node not in self._given_up and time.monotonic() - job.since >= self._deadline:
                self._given_up.add(node)  # it stays at work: nothing else is begun at that site
                self._workers -= 1
                self._replies[job.message.metadata.message_id] = Message(Error(LATE), reply_to=job.message)
        self._start_workers()

    def set_run(self, run: Run) -> None:
        """Set the run, as Flower's grids do."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every node, also those given up: the server knows whom not to ask."""
        return list(self._nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and pull until all replies are there, or `timeout` seconds have passed."""
        waiting = set(self.push_messages(messages))
        end = time.monotonic() + timeout if timeout is not None else float("inf")
        replies: list[Message] = []
        while waiting and time.monotonic() < end:
            new = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in new}
            replies += new
        return replies


def answer_or_error(app: ClientAppCallable, message: Message, context: Context) -> Message:
    """Let an app answer as Flower does; the words of an exception stay where they were said."""
    try:
        return app(message, context)
    except Exception:
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION), reply_to=message)
