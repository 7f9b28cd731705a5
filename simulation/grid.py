"""Flower's Grid in this process: each site is one watched thread, and `at_once` of them work at a time."""

import threading
import time
from collections.abc import Iterable, Mapping
from queue import SimpleQueue
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from gliofed.shared.messages import LATE

WAIT = 0.2  # seconds that a pull waits for an answer, instead of the caller


class _Site:
    """A node's thread and what it is doing."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.inbox: SimpleQueue[Message] = SimpleQueue()
        self.thread: threading.Thread | None = None
        self.message: Message | None = None
        self.since = 0.0
        self.hung = False


class LocalGrid(Grid):
    """Sites in this process; a site that works longer than `deadline` seconds is given up for good."""

    def __init__(self, app: ClientApp, nodes: Mapping[int, UserConfig], at_once: int, deadline: float) -> None:
        """Make a grid of `nodes`: node id to node config, as Flower gives it to a ClientApp."""
        self._app, self._deadline = app, deadline
        self._run = Run.create_empty(run_id=uuid4().int >> 65)
        # A Message asks this private class who speaks.
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self._run.run_id, SUPERLINK_NODE_ID
        self._sites = {
            node: _Site(Context(self._run.run_id, node, dict(config), RecordDict(), {}))
            for node, config in nodes.items()
        }
        self._slots = threading.Semaphore(at_once)
        self._changed = threading.Condition()
        self._replies: dict[str, Message] = {}

    @property
    def hung(self) -> bool:
        """Whether a thread was given up: the process must then be ended without waiting for it."""
        return any(site.hung for site in self._sites.values())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Put each message into its site's inbox."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            node = message.metadata.dst_node_id
            site = self._sites[node]
            if site.thread is None:  # daemon: the interpreter does not wait for it
                site.thread = threading.Thread(target=self._work, args=(site,), name=f"site-{node}", daemon=True)
                site.thread.start()
            site.inbox.put(message)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; wait a moment for the first."""
        wanted = set(message_ids)
        with self._changed:
            self._give_up_hung()
            self._changed.wait_for(lambda: wanted & self._replies.keys(), timeout=WAIT)
            return [self._replies.pop(message_id) for message_id in sorted(wanted & self._replies.keys())]

    def _work(self, site: _Site) -> None:
        while True:
            message = site.inbox.get()
            self._slots.acquire()
            site.since, site.message = time.monotonic(), message  # in this order: the watch reads both
            reply = answer_or_error(self._app, message, site.context)
            with self._changed:
                if site.hung:  # the slot was given to another long ago, and nobody waits for this reply
                    return
                site.message = None
                self._replies[message.metadata.message_id] = reply
                self._slots.release()
                self._changed.notify_all()

    def _give_up_hung(self) -> None:
        """Answer for sites that are past the deadline, and let another have their turn."""
        for site in self._sites.values():
            message = site.message
            if message is None or site.hung or time.monotonic() - site.since < self._deadline:
                continue
            site.hung = True
            self._replies[message.metadata.message_id] = Message(Error(LATE), reply_to=message)
            self._slots.release()

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
        return list(self._sites)

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
