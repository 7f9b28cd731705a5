"""A Ray cluster: two nodes on loopback, each with room for one site. Three minutes, mostly Ray's start."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from small_run import SMALL
from waiting import PATIENCE, alive, until

pytestmark = pytest.mark.ray
TESTS = Path(__file__).parents[1]
SIMULATE = [str(Path(sys.executable).with_name("gliofed-simulate"))]
METHOD = ("algorithm=scaffold", "optimizer=sgd", "train.lr=0.05")
"""Groups are sent and returned, and sites keep some: a method that does less asks less of the engine."""
RUN = (*SMALL, *METHOD, "sites=3", "device=cpu")
WEIGHTS = "model/model.safetensors"


class Node(NamedTuple):
    """One of Ray's."""

    id: str
    pid: int


class Cluster(NamedTuple):
    """Two nodes; a driver on this machine joins the first."""

    address: str
    head: Node
    second: Node


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    command = [sys.executable, str(TESTS / "ray_on_loopback.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        address, head, second = json.loads(process.stdout.readline())
        yield Cluster(address, Node(*head), Node(*second))
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of the same run in one process."""
    out = tmp_path_factory.mktemp("local")
    assert subprocess.run([*SIMULATE, *RUN, f"out={out}"], timeout=600, check=False).returncode == 0
    return (out / WEIGHTS).read_bytes()


@contextmanager
def held_run(cluster: Cluster, folder: Path, round: int, out: Path) -> Iterator["subprocess.Popen[str]"]:
    """A run whose sites wait in that round, on the cluster that RAY_ADDRESS names."""
    folder.mkdir()
    words = (*RUN, "engine=ray", "ray.address=auto", f"out={out}")
    command = [sys.executable, str(TESTS / "held_on_ray.py"), str(folder), str(round), *words]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    with subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE) as run:
        try:
            yield run
        finally:
            run.kill()


def held_at(folder: Path, node: Node) -> tuple[str, int]:
    """Wait for a site that waits on a node; return it, and its process."""
    file = until(lambda: next(iter(folder.glob(f"*@{node.id}")), None), "a site at work on the node")
    return file.name.partition("@")[0], int(file.read_text())


def test_a_cluster_gives_the_same_weights_and_stays(cluster: Cluster, weights: bytes, tmp_path: Path) -> None:
    command = [*SIMULATE, *RUN, "engine=ray", f"ray.address={cluster.address}", f"out={tmp_path}"]
    assert subprocess.run(command, timeout=600, check=False).returncode == 0
    assert (tmp_path / WEIGHTS).read_bytes() == weights
    assert alive(cluster.head.pid) and alive(cluster.second.pid)


def test_a_run_goes_on_when_a_node_is_lost(cluster: Cluster, weights: bytes, tmp_path: Path) -> None:
    """Killed while a site of it trains; on the other node the site trains anew. The run leaves no process there."""
    held, out = tmp_path / "held", tmp_path / "out"
    with held_run(cluster, held, 2, out) as run:
        site, worker = held_at(held, cluster.second)
        for pid in (cluster.second.pid, worker):  # as a machine that is switched off
            os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(worker), "the end of the lost node's worker")
        (held / "go").touch()
        run.communicate(timeout=600)
    assert run.returncode == 0
    worker = int((held / f"{site}@{cluster.head.id}").read_text())
    until(lambda: not alive(worker), "the end of the other node's worker")
    assert alive(cluster.head.pid)
    assert (out / WEIGHTS).read_bytes() == weights
    assert json.loads((out / "history.jsonl").read_text().splitlines()[-1])["status"] == "done"


def test_an_interrupted_run_leaves_the_cluster_and_nothing_on_it(cluster: Cluster, tmp_path: Path) -> None:
    held = tmp_path / "held"
    with held_run(cluster, held, 1, tmp_path / "out") as run:
        _, worker = held_at(held, cluster.second)
        run.send_signal(signal.SIGINT)
        assert "interrupted; go on with" in run.communicate(timeout=600)[1] and run.returncode == 130
    until(lambda: not alive(worker), "the end of the worker")
    assert alive(cluster.head.pid) and alive(cluster.second.pid)


def test_a_node_that_sees_other_files_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """Nodes of one machine see the same, so the engine is asked for what is nowhere."""
    code = f"""
import ray
from gliofed.simulation.ray_engine import _check_nodes, _join
_join({cluster.address!r}, "cpu")
_check_nodes(ray.nodes(), [{str(tmp_path)!r}, "/nowhere"])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert "the node at 127.0.0.1 does not see /nowhere" in ended.stderr


@pytest.mark.parametrize("listens", [False, True], ids=["nothing", "another_program"])
def test_no_cluster_is_one_sentence(listens: bool, tmp_path: Path) -> None:
    """Ray would try for minutes. Where another program listens, it prints a warning of its own first."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        if listens:
            other.listen()
        address = f"ray.address=127.0.0.1:{other.getsockname()[1]}"
        command = [*SIMULATE, *RUN, "engine=ray", address, f"out={tmp_path}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(f"gliofed-simulate: {address}: ")
    assert not (tmp_path / "run.json").exists()
