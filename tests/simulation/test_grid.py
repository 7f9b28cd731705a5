"""The grid in this process: answers, faults, and sites that never answer."""

import gc
import math
import threading
import weakref
from collections.abc import Callable

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hanging import time_is_over
from waiting import PATIENCE, until

from gliofed.shared.messages import LATE
from gliofed.simulation.grid import LocalGrid

Train = Callable[[Message, Context], Message]


def grid_of(train: Train, nodes: int = 3, at_once: int = 2, deadline: float = 30.0) -> LocalGrid:
    app = ClientApp()
    app.train()(train)
    return LocalGrid(app, {node: {"partition-id": node} for node in range(1, nodes + 1)}, at_once, deadline)


def echo(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


def requests(nodes: int = 3) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in range(1, nodes + 1)]


def test_every_site_answers_its_own_message() -> None:
    grid = grid_of(echo)
    assert sorted(reply.metadata.src_node_id for reply in grid.send_and_receive(requests())) == [1, 2, 3]


def test_an_exception_leaves_no_word() -> None:
    def fail(message: Message, context: Context) -> Message:
        raise ValueError("patient Erika Mustermann")

    (reply,) = grid_of(fail, nodes=1).send_and_receive(requests(1))
    assert reply.has_error()
    assert "Erika" not in repr(reply.error)


def test_no_more_than_at_once_work_at_a_time() -> None:
    working, most, lock, two = 0, 0, threading.Lock(), threading.Barrier(2)

    def count(message: Message, context: Context) -> Message:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        two.wait(PATIENCE)  # who works alone would wait for ever
        with lock:
            working -= 1
        return echo(message, context)

    grid = grid_of(count, nodes=6, at_once=2)
    assert len(list(grid.send_and_receive(requests(6)))) == 6
    assert most == 2


def test_a_site_that_hangs_gives_its_turn_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one turn for three sites, the two honest ones would wait for ever."""
    release = threading.Event()

    def hang(message: Message, context: Context) -> Message:
        if context.node_id == 1:
            release.wait()
        return echo(message, context)

    time_is_over(monkeypatch, 1, "train")
    replies = list((grid := grid_of(hang, at_once=1, deadline=math.inf)).send_and_receive(requests()))
    late = [reply.metadata.src_node_id for reply in replies if reply.has_error() and reply.error.code == LATE]
    assert late == [1]
    assert len(replies) == 3
    assert grid.hung
    release.set()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "worker"]


def test_a_turn_is_given_back_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that was given up and then comes to its end must not free a second turn, nor answer once more."""
    release, before = threading.Event(), set(workers())

    def hang(message: Message, context: Context) -> Message:
        if context.node_id == 1:
            release.wait()
        return echo(message, context)

    time_is_over(monkeypatch, 1, "train")
    grid = grid_of(hang, nodes=2, at_once=1, deadline=math.inf)
    list(grid.send_and_receive(requests(2)))
    release.set()
    until(lambda: not set(workers()) - before, "the end of both workers")
    assert grid._workers == 0 and grid._replies == {}


def test_a_site_does_one_thing_at_a_time_and_a_given_up_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at work in one folder would write over each other; what is left of it waits, and others have their turn."""
    begun, release = list[int](), threading.Event()

    def hang(message: Message, context: Context) -> Message:
        begun.append(context.node_id)
        if context.node_id == 1:
            release.wait()
        return echo(message, context)

    grid = grid_of(hang, nodes=2, at_once=2, deadline=math.inf)
    first, second, other = grid.push_messages([Message(RecordDict(), node, "train") for node in (1, 1, 2)])
    until(lambda: other in grid._replies, "the other site's answer")
    time_is_over(monkeypatch, 1, "train")
    assert [reply.error.code for reply in grid.pull_messages([first, second])] == [LATE]
    (again,) = grid.push_messages([Message(RecordDict(), 2, "train")])
    until(lambda: again in grid._replies, "the other site's second answer")
    assert sorted(begun) == [1, 2, 2]
    release.set()


def test_workers_end_with_the_work_and_hold_none_of_it() -> None:
    """A thread, or a reply, for each of many sites would be memory that grows with them."""
    before, seen = set(workers()), list[weakref.ref[RecordDict]]()

    def answer(message: Message, context: Context) -> Message:
        reply = Message(RecordDict(), reply_to=message)
        seen.append(weakref.ref(reply.content))
        return reply

    grid = grid_of(answer, nodes=50, at_once=3)
    most = 0
    waiting = set(grid.push_messages(requests(50)))
    while waiting:
        most = max(most, len(set(workers()) - before))
        waiting -= {reply.metadata.reply_to_message_id for reply in grid.pull_messages(waiting)}
    assert len(seen) == 50 and most <= 3
    until(lambda: not set(workers()) - before, "the end of all workers")
    gc.collect()
    assert [content for content in seen if content()] == []


def test_a_pull_takes_only_what_it_asks_for() -> None:
    grid = grid_of(echo, nodes=2)
    one, two = list(grid.push_messages(requests(2)))
    until(lambda: len(grid._replies) == 2, "both replies")
    assert [reply.metadata.reply_to_message_id for reply in grid.pull_messages([two])] == [two]
    assert [reply.metadata.reply_to_message_id for reply in grid.pull_messages([one, two])] == [one]


@pytest.mark.parametrize("timeout", [0.0, 0.1])
def test_send_and_receive_keeps_its_timeout(timeout: float) -> None:
    release = threading.Event()

    def hang(message: Message, context: Context) -> Message:
        release.wait()
        return echo(message, context)

    assert list(grid_of(hang, nodes=1).send_and_receive(requests(1), timeout=timeout)) == []
    release.set()
