"""The SuperLink's Control API as `start` sees it; tests/deploy speak to a real one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.proto.control_pb2 import ListNodesResponse, ListRunsResponse, StartRunResponse
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import Run, RunStatus

import gliofed.server.link.control
from gliofed.server.link.control import Control, ControlError, Node


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Control, Any]:
    """A SuperLink that answers what a test puts there."""
    (tmp_path / "ca.crt").write_text("")
    answers = SimpleNamespace(close=lambda: None)
    client = SimpleNamespace(from_server_address=lambda *_: answers)
    monkeypatch.setattr(gliofed.server.link.control, "ControlHttpClient", client)
    return Control("127.0.0.1:1", tmp_path / "ca.crt"), answers


def test_nodes_that_were_unregistered_are_not_there(link: tuple[Control, Any]) -> None:
    control, answers = link
    nodes = [
        NodeInfo(node_id=1, public_key=b"a", status="online"),
        NodeInfo(node_id=2, public_key=b"b", status="unregistered", unregistered_at="2026-01-01T00:00:00"),
        NodeInfo(node_id=3, public_key=b"c", status="offline", last_deactivated_at="2026-01-02T00:00:00"),
    ]
    answers.ListNodes = lambda request: ListNodesResponse(nodes_info=nodes)
    assert control.nodes() == [
        Node(id=1, public_key=b"a", online=True, ended=""),
        Node(id=3, public_key=b"c", online=False, ended="2026-01-02T00:00:00"),
    ]


def test_a_finished_run_does_not_go_on(link: tuple[Control, Any]) -> None:
    control, answers = link
    words = {1: "running", 2: "finished", 3: "pending"}
    runs = {run: Run(run_id=run, status=RunStatus(status=word)) for run, word in words.items()}
    answers.ListRuns = lambda request: ListRunsResponse(run_dict=runs)
    assert control.unfinished() == {1: "running", 3: "pending"}


def test_code_that_flower_does_not_take_is_an_error(link: tuple[Control, Any]) -> None:
    """It answers without a run's id, and says why in its log alone."""
    control, answers = link
    answers.StartRun = lambda request: StartRunResponse()
    with pytest.raises(ControlError, match="does not take the code"):
        control.start_run(b"code", {"out": "/x"})


def test_a_superlink_that_is_not_there_is_one_sentence(link: tuple[Control, Any]) -> None:
    control, answers = link

    def refuse(request: object) -> None:
        raise httpx.ConnectError("Connection refused")

    answers.StopRun = refuse
    with pytest.raises(ControlError, match=r"the SuperLink at 127\.0\.0\.1:1: Connection refused"):
        control.stop_run(1)
