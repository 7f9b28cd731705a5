"""Whatever becomes of a request's process, there is a reply; here shells stand for it, with Flower's own state."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.nodestate import NodeStateFactory

import gliofed.client.link.execute
from gliofed.client.link.execute import Executor
from gliofed.simulation.grid import LocalGrid

CODE = b"code"
CRASHED, NOT_APPROVED = 8, 7
Asked = Callable[..., list[Message]]


@pytest.fixture
def node(tmp_path: Path) -> Any:
    """A SuperNode that has received a request."""
    LocalGrid(ClientApp(), {}, 1, 1.0)  # a Message needs to know who speaks
    stores = ObjectStoreFactory()
    state = NodeStateFactory(objectstore_factory=stores).state()
    state.set_node_id(1)
    state.store_fab(Fab(hashlib.sha256(CODE).hexdigest(), CODE, {}))
    made = SimpleNamespace(state=state, store=stores.store(), apps=tmp_path / "apps")
    made.message, made.task = received(made)
    return made


def received(node: Any) -> tuple[Message, int]:
    message = Message(RecordDict(), 1, "train", group_id="4")
    message.metadata.__dict__["_message_id"] = message.object_id
    run = Run.create_empty(run_id=message.metadata.run_id)
    run.fab_hash = hashlib.sha256(CODE).hexdigest()
    node.state.store_run(run)
    task = node.state.create_task(task_type=TaskType.CLIENT_APP, run_id=run.run_id, fab_hash=run.fab_hash)
    node.state.store_message(message)
    return message, task


def answered(node: Any, script: str, allowed: Callable[[bytes], bool] = lambda code: True) -> list[Message]:
    """What there is to send after the script has had the request."""
    Executor(["sh", "-c", script], allowed, node.apps).answer(node.message, node.state, node.store)
    return list(node.state.get_messages_legacy(is_reply=True))


def reply(node: Any, objects: bool) -> Message:
    """Hand over a reply as a ClientApp does, with its objects or without."""
    made = Message(RecordDict({"said": ConfigRecord({"word": "yes"})}), reply_to=node.message)
    made.metadata.__dict__["_message_id"] = made.object_id
    session = node.state.start_session(made.metadata.run_id)
    node.state.store_message_and_object_tree(made, get_object_tree(made), session)
    for name, each in get_all_nested_objects(made).items() if objects else ():
        node.state.store_object(made.metadata.run_id, session, name, each.deflate())
    return made


@pytest.mark.parametrize("script", ["exit 0", "kill -TERM $$", "kill -KILL $$"])
def test_a_process_that_ends_without_a_reply(node: Any, script: str) -> None:
    """Flower itself waits for ever for the first two, and 90 s for the third."""
    (found,) = answered(node, script)
    assert found.error.code == CRASHED
    assert found.metadata.reply_to_message_id == node.message.metadata.message_id
    assert node.store.get(found.metadata.message_id)  # it can be sent
    assert node.state.get_tasks(task_ids=[node.task])[0].status.sub_status == SubStatus.FAILED


def test_a_reply_of_which_half_was_handed_over(node: Any) -> None:
    """Sending it would wait for the rest."""
    (found,) = answered(node, "exit 0", lambda code: bool(reply(node, objects=False)))
    assert found.error.code == CRASHED


def test_a_whole_reply_is_left_as_it_is(node: Any) -> None:
    (found,) = answered(node, "kill -KILL $$", lambda code: bool(reply(node, objects=True)))
    assert not found.has_error()


def test_what_flower_has_answered_is_not_run(node: Any, tmp_path: Path) -> None:
    """It does where the code is refused; a task that is still there is of something else."""
    refusal = reply(node, objects=True)
    (found,) = answered(node, f"touch {tmp_path}/ran")
    assert found.metadata.message_id == refusal.metadata.message_id and not (tmp_path / "ran").exists()


def test_code_that_is_not_allowed_any_more(node: Any, tmp_path: Path) -> None:
    """Flower asks for a run's first request alone."""
    (found,) = answered(node, f"touch {tmp_path}/ran", lambda code: code != CODE)
    assert found.error.code == NOT_APPROVED and not (tmp_path / "ran").exists()


def test_no_code_that_lies_there_already_is_run(node: Any, tmp_path: Path) -> None:
    """Flower runs what it finds: half of it after a kill, or something else."""
    (node.apps / "gliofed.gliofed.1.0.12345678").mkdir(parents=True)
    answered(node, f"ls {node.apps} > {tmp_path}/seen 2>&1 || true")
    assert "No such file" in (tmp_path / "seen").read_text()


def test_the_token_comes_by_standard_input(node: Any, tmp_path: Path) -> None:
    """Everybody on the machine can read the words of a command, and a token is all that a forged update needs."""
    answered(node, f"cat > {tmp_path}/token; tr '\\0' ' ' < /proc/$$/cmdline > {tmp_path}/words")
    token = (tmp_path / "token").read_text().strip()
    assert len(token) >= 32 and token not in (tmp_path / "words").read_text()


def test_a_process_that_has_said_that_it_is_done_and_does_not_end(
    node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gliofed.client.link.execute, "EXIT", 0.1)
    done = threading.Timer(0.2, node.state.finish_task, (node.task, SubStatus.STOPPED, ""))
    done.start()
    answered(node, f"sleep 20; touch {tmp_path}/ended-by-itself")
    done.join()
    assert not (tmp_path / "ended-by-itself").exists()


def test_what_is_left_of_another_request_is_not_answered(node: Any) -> None:
    """One whose run was stopped while it came: its process would take the next message for its own."""
    stale = node.message
    node.message, node.task = received(node)
    (found,) = answered(node, "exit 0")
    assert found.metadata.reply_to_message_id == node.message.metadata.message_id
    assert stale.metadata.message_id not in node.state.msg_store and not node.state.get_tasks(statuses=["pending"])


def test_no_process_can_be_started(node: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Executor(["/nowhere/program"], lambda code: True, node.apps).answer(node.message, node.state, node.store)
    (found,) = node.state.get_messages_legacy(is_reply=True)
    assert found.error.code == CRASHED and "/nowhere/program" in capsys.readouterr().err
