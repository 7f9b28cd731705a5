"""What one site's reply can do to the pull of it, with Flower's own grid; test_mail has what becomes of a round."""

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import torch
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid

import gliofed.server.round.pulling
from gliofed.server.round.pulling import SLACK, UNREADABLE, Pulled, SeparatePulls
from gliofed.shared.codec import encode, weights_to_bytes
from gliofed.shared.codecs import CODECS
from gliofed.shared.messages import Reply
from gliofed.shared.parse import ConfigError
from gliofed.simulation.grid import LocalGrid

MIB = 2**20
URL = httpx.Request("POST", "https://localhost/v1/runtime/pull-messages")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gliofed.server.round.pulling, "PAUSE", 0.001)


class Failing:
    """A grid whose pulls of one message fail, `times` times; another's is answered."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times = error, times

    def pull_messages(self, messages: list[str]) -> list[str]:
        (message,) = messages
        if message == "bad" and self.times > 0:
            self.times -= 1
            raise self.error
        return [f"reply to {message}"]


def status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=URL, response=httpx.Response(code))


def pulled(pulls: SeparatePulls, *messages: str, sent: int = 0) -> dict[str, object]:
    """Pull until there is something for each."""
    found: Pulled = []
    while len(found) < len(messages):
        found += pulls([each for each in messages if each not in dict(found)], sent)
    return dict(found)


class Store(RuntimeHttpClient):
    """What a SuperLink keeps of replies, behind Flower's own grid; a test may change the contents."""

    def __init__(self, **replies: Reply) -> None:
        LocalGrid(ClientApp(), {}, 1, 1.0)  # a Message needs to know who speaks
        self.messages: dict[str, Message] = {}
        self.to_itself: list[Message] = []
        """What was sent to the SuperLink as an instruction."""
        self.contents: dict[str, bytes] = {}
        self.asked_for: list[str] = []
        for name, reply in replies.items():
            self.messages[name] = self.keep(reply)

    def keep(self, reply: Reply) -> Message:
        message = Message(reply.to_records(), 1, "train")
        message.metadata.__dict__["_message_id"] = message.object_id
        self.contents |= {key: each.deflate() for key, each in get_all_nested_objects(message).items()}
        return message

    def grid(self) -> HttpGrid:
        grid = HttpGrid(token="t")
        grid._client = self
        grid.set_run(Run.create_empty(1))
        return grid

    def _unary_unary(self, *, request: Any, response_type: Any, **_: object) -> Any:
        if isinstance(request, PullAppMessagesRequest):
            given = [(each, self.messages[each]) for each in request.message_ids if each in self.messages]
            given += [("", each) for each in self.to_itself]
            protos = [message_to_proto(remove_content_from_message(each)) for _, each in given]
            for proto, (asked, _) in zip(protos, given, strict=True):
                proto.metadata.reply_to_message_id = asked
            trees = [get_object_tree(each) for _, each in given]
            return PullAppMessagesResponse(messages_list=protos, message_object_trees=trees)
        if isinstance(request, PullObjectRequest):
            self.asked_for.append(request.object_id)
            content = self.contents[request.object_id]
            return PullObjectResponse(object_found=True, object_available=True, object_content=content)
        return response_type()


def reply_of(size: int) -> Reply:
    return Reply(site="a", update=os.urandom(size))


def taken(store: Store, sent: int = 0) -> dict[str, Reply | object]:
    """What comes of each reply in the store, after a model of `sent` bytes was sent."""
    found = pulled(SeparatePulls(store.grid()), *store.messages, sent=sent)
    return {n: Reply.from_records(r.content) if isinstance(r, Message) else r for n, r in found.items()}


def test_a_reply_over_which_the_superlink_fails_costs_its_own_site_alone(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower stores a reply made at NaN, and answers 500 to each pull of it."""
    monkeypatch.setattr(gliofed.server.round.pulling, "PATIENCE", 0.05)
    pulls = SeparatePulls(Failing(status(500), 10**9))  # type: ignore[arg-type]
    assert pulled(pulls, "bad", "good") == {"bad": UNREADABLE, "good": "reply to good"}


def test_a_superlink_that_fails_for_a_moment_costs_nobody_anything(quick: None) -> None:
    pulls = SeparatePulls(Failing(status(500), 3))  # type: ignore[arg-type]
    assert pulled(pulls, "bad", "good") == {"bad": "reply to bad", "good": "reply to good"}


@pytest.mark.parametrize("error", [lambda: status(403), lambda: httpx.ConnectError("refused"), OSError])
def test_what_no_reply_can_cause_ends_the_server(quick: None, error: Callable[[], Exception]) -> None:
    """It is started again, and the run goes on where it was."""
    raised = error()
    with pytest.raises(type(raised)):
        pulled(SeparatePulls(Failing(raised, 1)), "bad")  # type: ignore[arg-type]


@pytest.mark.parametrize("codec", CODECS)
def test_an_update_of_the_models_size_is_taken(codec: str) -> None:
    """Many small tensors, of which the names and scales weigh most; zeros, of which Flower sends one chunk once."""
    weights = {f"blocks.{number}.layers.{number}.weight": torch.ones(3) for number in range(3000)}
    weights["large"] = torch.zeros(2 * MIB)
    honest = Reply(site="a", update=encode(weights, codec))
    assert taken(Store(a=honest), sent=len(weights_to_bytes(weights))) == {"a": honest}


def test_an_array_that_repeats_its_chunks_is_not_made() -> None:
    """Flower's arrays name their chunks by number, and may name one a million times: here 24 times a megabyte."""
    store = Store(a=reply_of(MIB), b=reply_of(MIB))
    array = next(key for key in store.contents if store.contents[key].startswith(b"Array "))
    head, _, body = store.contents[array].partition(b"\0")
    store.contents[array] = head + b"\0" + json.dumps(json.loads(body) | {"arraychunk_ids": [0] * 24}).encode()
    found = taken(store)
    assert found["a"] == UNREADABLE
    assert isinstance(found["b"], Reply)


def test_no_more_is_pulled_than_an_honest_site_can_send() -> None:
    """Of 40 MB in answer to a request without a model, each of Flower's two threads takes one of 5 MiB at most."""
    store = Store(a=reply_of(40 * MIB))
    assert taken(store) == {"a": UNREADABLE}
    assert sum(len(store.contents[each]) for each in store.asked_for) < 3 * 5 * MIB
    assert isinstance(taken(store, sent=40 * MIB - SLACK + 100_000)["a"], Reply)


def test_numbers_and_words_have_a_limit_of_their_own() -> None:
    """They take many times their bytes in memory."""
    store = Store(a=Reply(site="a" * 2 * MIB))
    assert taken(store, sent=40 * MIB) == {"a": UNREADABLE}


def test_one_reply_at_a_time_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the memory that it takes would grow with the sites."""
    together = threading.Barrier(2)
    met = []

    def inflate(*given: object) -> object:
        try:
            together.wait(0.1)
            met.append(True)
        except threading.BrokenBarrierError:
            together.reset()
        return inflate_object_from_contents(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(gliofed.server.round.pulling, "inflate_object_from_contents", inflate)
    assert len(taken(Store(a=reply_of(10), b=reply_of(20)))) == 2
    assert not met


def test_what_was_sent_as_the_superlink_is_no_sites_reply() -> None:
    """Any site can send that, and Flower adds it to whatever is pulled next."""
    store = Store()
    store.to_itself.append(store.keep(reply_of(10)))
    pulls = SeparatePulls(store.grid())
    assert pulls(["a"], 0) == []
    store.messages["a"] = store.keep(honest := reply_of(20))
    (message,) = pulled(pulls, "a").values()
    assert isinstance(message, Message)
    assert Reply.from_records(message.content) == honest


def test_each_run_has_its_own_limit_around_flowers_names_which_are_replaced_once() -> None:
    """Else each of a process's runs would wrap the names again, and its limit would hold for those before it."""
    store = Store(a=reply_of(2 * SLACK))
    first = SeparatePulls(store.grid())
    replaced = RuntimeHttpClient.PullMessages
    SeparatePulls(Store().grid())
    assert RuntimeHttpClient.PullMessages is replaced
    assert isinstance(pulled(first, "a", sent=2 * SLACK)["a"], Message)


def test_another_flower_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is replaced here might not be what takes replies there."""
    monkeypatch.setattr("gliofed.shared.flower.__version__", "1.0.0")
    with pytest.raises(ConfigError, match=r"flwr 1\.0\.0: replies are known to be kept apart with .*; install that"):
        SeparatePulls(Failing(OSError(), 0))  # type: ignore[arg-type]
