"""What a hospital may send: tests/deploy/test_link.py sends the rest to a real SuperLink."""

from collections.abc import Callable

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.error import FlowerError

from gliofed.server.link.fleet import guarded, main


def reply(created: float = 1.8e9, ttl: float = 3600.0, source: int = 7, to: str = "asked") -> PushMessagesRequest:
    """What node 7 sends."""
    request = PushMessagesRequest(message_object_trees=[ObjectTree()])
    request.node.node_id = 7
    about = request.messages_list.add().metadata
    about.src_node_id, about.reply_to_message_id, about.created_at, about.ttl = source, to, created, ttl
    return request


def two() -> PushMessagesRequest:
    """Flower looks at the first alone."""
    request = reply()
    request.messages_list.append(request.messages_list[0])
    return request


def push(request: PushMessagesRequest) -> list[PushMessagesRequest]:
    """What Flower's own handler gets."""
    taken: list[PushMessagesRequest] = []

    def handler(request: PushMessagesRequest, state: object) -> PushMessagesResponse:
        taken.append(request)
        return PushMessagesResponse()

    guarded(handler)(request, None)  # type: ignore[arg-type]  # of no use here
    return taken


def test_its_own_reply_is_taken() -> None:
    assert push(reply()) == [reply()]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: reply(source=1), "of another node"),  # the SuperLink's number: a request in the server's name
        (lambda: reply(source=8), "of another node"),
        (lambda: reply(to=""), "no reply"),
        (lambda: reply(created=float("nan")), "no number"),
        (lambda: reply(ttl=float("inf")), "no number"),
        (two, "not one message"),
        (PushMessagesRequest, "not one message"),
    ],
)
def test_nothing_else_is(made: Callable[[], PushMessagesRequest], reason: str) -> None:
    with pytest.raises(FlowerError, match=f"node . sent what it may not: .*{reason}"):
        push(made())


def test_another_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is replaced might not be what takes a message there."""
    monkeypatch.setattr("gliofed.shared.flower.__version__", "1.0.0")
    with pytest.raises(SystemExit, match=r"flwr 1\.0\.0: hospitals are known to be kept apart with .*; install that"):
        main()
