"""Runs across real processes, with Flower's own SuperNodes: what comes of them, whatever is killed on the way."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployed_federation import Deployed
from safetensors.torch import load_file
from small_run import SMALL, composed
from torch.testing import assert_close
from waiting import until

from gliofed.simulation.simulate import simulate

pytestmark = pytest.mark.deploy

SITES = ("site-1", "site-2")
ROUNDS = 900.0
"""Seconds for rounds: every message is a process of its own at the site, which a busy machine starts slowly."""
SETTINGS = ("data=mock", *SMALL, "rounds=3", "round.evaluate_every=3", "round.join=120", "round.deadline=300")
METHODS = {
    "scaffold": ("algorithm=scaffold", "optimizer=sgd", "train.lr=0.05"),
    "fedbn": ("algorithm=fedbn", "optimizer.moments=kept", "data.test=0.4"),
}
"""They send and keep groups beside the weights, one has a test; plain FedAvg is in test_bundles, test_federation."""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same runs in one process, by method; the first has the sites' data as well."""
    folder = tmp_path_factory.mktemp("simulated")
    for method, words in METHODS.items():
        data = f"data.root={folder / 'data'}"
        words = (*words, "data.patients=6")  # one folder for all
        simulate(composed("sites=2", *SETTINGS[1:], *words, data, f"out={folder / method}"))
    return folder


@pytest.fixture(scope="module")
def federation(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Two hospitals with the simulation's names and data, all connected."""
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("nginx is not installed")
    made = Deployed(tmp_path_factory.mktemp("deployed"), SITES)
    made.provision()
    for site in SITES:
        made.admit(site)
        file = made.hospital(site) / "site.yaml"
        text = file.read_text().replace("root: ???", f"root: {simulated}/data/{site}")
        text = text.replace("labels: ???", "labels: mock").replace("metrics: unless_private", "metrics: always")
        file.write_text(text.replace("device: auto", "device: cpu").replace("min_patients: 5", "min_patients: 1"))
    made.start()
    try:
        for site in SITES:
            made.node(site)
        for site in SITES:
            until(lambda site=site: made.connected(site), f"{site} connected")
        yield made
    finally:
        made.end()


def submit(federation: Deployed, method: str) -> Path:
    words = ("run", f"federation={federation.folder}", f"name={method}", *SETTINGS, *METHODS[method])
    assert federation.command(*words).wait() == 0
    return federation.folder / "runs" / method


def events(run: Path) -> list[dict[str, Any]]:
    file = run / "history.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measured_at_the_end(run: Path) -> list[Any]:
    return [event["models"] for event in events(run) if event["event"] == "test"]


def rounds(run: Path) -> int:
    return sum(event["event"] == "round" for event in events(run))


def state(federation: Deployed, name: str) -> str:
    return next(str(run["state"]) for run in federation.status()["runs"] if run["name"] == name)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_broken_and_stopped_ends_as_the_simulation_does(
    federation: Deployed, simulated: Path, method: str
) -> None:
    """The SuperLink is killed in the first round, and the run is stopped and goes on after the second."""
    run = submit(federation, method)
    until(lambda: (run / "spool").exists() or rounds(run), "training began")
    os.kill(federation.pid("superlink"), signal.SIGKILL)
    until(lambda: rounds(run) >= 1, "the first round", ROUNDS)
    assert federation.command("stop", method, "--folder", federation.folder).wait() == 0
    until(lambda: state(federation, method) == "stopped", "the run stopped")
    assert federation.command("run", f"federation={federation.folder}", f"resume={method}").wait() == 0
    until(lambda: events(run)[-1]["event"] == "end", "the run ended", ROUNDS)
    assert events(run)[-1]["status"] == "done"
    until(lambda: state(federation, method) == "done", "the end was noticed")
    ours, theirs = (load_file(each / "model" / "model.safetensors") for each in (run, simulated / method))
    assert_close(ours, theirs, rtol=0, atol=0)
    assert measured_at_the_end(run) == measured_at_the_end(simulated / method)
    assert len(measured_at_the_end(run)) == ("data.test=0.4" in METHODS[method])
    assert "round 3/3: 2 of 2 sites counted" in (run / "server.log").read_text()
    sites = {site["name"]: site for site in federation.status()["sites"]}
    assert {site["round"] for site in sites.values()} == {"counted"}
