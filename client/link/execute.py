"""A process for each request, started by the SuperNode itself in the place of Flower's SuperExec.

SuperExec shows a request's token to every user of the machine, and where it or what it started is killed the SuperNode
waits for ever. Here nobody else can ask for a token, and there is a reply whatever ends the process.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Error, Message
from flwr.common.constant import Status, SubStatus
from flwr.proto.task_pb2 import Task
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store import ObjectStore
from flwr.supernode.nodestate.in_memory_nodestate import CLIENT_APP_CRASHED_ERROR, InMemoryNodeState
from flwr.supernode.start_client_internal import FAB_VERIFICATION_ERROR, _insert_message

from gliofed.client.link.life import complain

POLL = 0.2
"""Seconds between two looks at a process."""
LOADING = 180.0
"""Seconds that it may take to load, from a slow disk; by itself Flower gives it 30."""
EXIT = 30.0
"""Seconds that it may take to end, once it has said that it is done or has said nothing for too long."""


@dataclass(frozen=True)
class Executor:
    """Has the requests of a SuperNode answered, one at a time."""

    command: Sequence[str]
    """Of a process; it reads its token from standard input."""
    allowed: Callable[[bytes], bool]
    """Whether this code may run."""
    apps: Path
    """Where Flower unpacks code, and runs what it finds there already."""

    def answer(self, message: Message, state: InMemoryNodeState, store: ObjectStore) -> None:
        """Have a request answered that has come whole; afterwards its reply, or an error in its place, is there."""
        ours = message.metadata.message_id
        if _replies(ours, state):  # Flower's own: the code was refused
            return
        # What Flower left of a request that could not be received: a process would take it for its own.
        state.delete_messages(message_ids=[id for id in state.msg_store if id != ours])
        tasks = state.get_tasks(statuses=[Status.PENDING], order_by="pending_at")
        for task in tasks[:-1]:
            state.finish_task(task.task_id, SubStatus.FAILED, "")
        error = FAB_VERIFICATION_ERROR
        if tasks and self._may_run(tasks[-1], state):
            error = CLIENT_APP_CRASHED_ERROR
            try:
                self._run(tasks[-1], state)
            except OSError as reason:  # no room, no memory
                complain(f"no process for the request: {reason}")
        for task in tasks[-1:]:
            state.finish_task(task.task_id, SubStatus.FAILED, "")  # without effect where it has said that it is done
        _see_to_reply(message, state, store, error)

    def _may_run(self, task: Task, state: InMemoryNodeState) -> bool:
        """Ask again for each request: an approval may have been withdrawn."""
        run = state.get_run(task.run_id)
        fab = state.get_fab(run.fab_hash) if run else None
        return fab is not None and self.allowed(fab.content)

    def _run(self, task: Task, state: InMemoryNodeState) -> None:
        # So that it is unpacked anew: what a killed process left half, or somebody altered, would run as it is.
        shutil.rmtree(self.apps, ignore_errors=True)
        if self.apps.exists():
            raise OSError(f"{self.apps}: cannot be removed")
        token = state.claim_task(task.task_id)
        assert token is not None  # nobody else has the secret that asking for one needs
        with subprocess.Popen(self.command, stdin=subprocess.PIPE) as process:  # noqa: S603  # our own command
            try:
                assert process.stdin is not None
                with suppress(BrokenPipeError):
                    process.stdin.write(f"{token}\n".encode())
                    process.stdin.close()
                loaded = time.monotonic() + LOADING
                while process.poll() is None:
                    if time.monotonic() < loaded:
                        state.acknowledge_task_heartbeat(task.task_id)
                    if state.get_task_by_token(token) is None:
                        with suppress(subprocess.TimeoutExpired):
                            process.wait(EXIT)
                        process.kill()
                    time.sleep(POLL)
            finally:
                process.kill()


def _see_to_reply(message: Message, state: InMemoryNodeState, store: ObjectStore, error: Error) -> None:
    """Put an error in the place of a reply that is not there, or not whole: sending it would wait for the rest."""
    ids = [each.metadata.message_id for each in _replies(message.metadata.message_id, state)]
    trees = [store.get_object_tree(each) for each in ids]
    if ids and all(store.get(each.object_id) for tree in trees for each in iterate_object_tree(tree)):
        return
    state.delete_messages(message_ids=ids)
    for each in ids:
        store.delete(each)
    _insert_message(Message(error, reply_to=message), state, store)


def _replies(asked: str, state: InMemoryNodeState) -> list[Message]:
    """The replies to a message that are there, whole or not."""
    return [each.message for each in state.msg_store.values() if each.message.metadata.reply_to_message_id == asked]
