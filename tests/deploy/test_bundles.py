"""New code is provisioned and approved in the middle of a run, and the aggregator restarted: the run keeps its own."""

import hashlib
import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from deployed_federation import Deployed
from flwr.cli.build import build_fab_from_files
from safetensors.torch import load_file
from small_run import SMALL, composed
from torch.testing import assert_close
from waiting import until

from gliofed.client.link.approve import approve
from gliofed.server.link.runs import Run
from gliofed.server.provisioning.provision import provision
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.code import files_of
from gliofed.simulation.simulate import simulate

pytestmark = pytest.mark.deploy

INVITED, ALL = ("site-1", "site-2"), ("site-1", "site-2", "site-3")
ROUNDS = 900.0
"""Seconds for rounds, which a busy machine starts slowly."""
SETTINGS = ("data=mock", *SMALL, "rounds=2", "round.join=120", "round.deadline=300")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in one process; its folder has the sites' data as well."""
    out = tmp_path_factory.mktemp("simulated") / "out"
    simulate(composed(f"sites={len(INVITED)}", *SETTINGS[1:], f"out={out}"))
    return out


@pytest.fixture(scope="module")
def federation(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Hospitals with the simulation's names and data; the third one has the first one's."""
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("nginx is not installed")
    made = Deployed(tmp_path_factory.mktemp("deployed"), ALL)
    made.provision()
    for site in ALL:
        made.admit(site)
        file = made.hospital(site) / "site.yaml"
        scans = simulated / "data" / (site if site in INVITED else INVITED[0])
        text = file.read_text().replace("root: ???", f"root: {scans}").replace("labels: ???", "labels: mock")
        text = text.replace("metrics: unless_private", "metrics: always").replace("min_patients: 5", "min_patients: 1")
        file.write_text(text.replace("device: auto", "device: cpu"))
        agree(made.hospital(site), made.folder / "code.fab")
    made.start()
    try:
        for site in ALL:
            made.hospital_start(site)
        for site in ALL:
            until(lambda site=site: made.connected(site), f"{site} connected")
        yield made
    finally:
        made.end()


def agree(hospital: Path, code: Path) -> None:
    with redirect_stdout(io.StringIO()):  # it shows all of the code
        assert approve(hospital, code, hashlib.sha256(code.read_bytes()).hexdigest()) == 0


def other_code(code: Path) -> bytes:
    """A bundle that runs, and takes half a step after each round: it would leave other weights."""
    files = files_of(code.read_bytes())
    path = "gliofed/server/round/strategies.py"
    steps = files[path]
    files[path] = steps.replace(b"SGD(weights, lr=config.lr)", b"SGD(weights, lr=config.lr / 2)")
    assert files[path] != steps
    return bytes(build_fab_from_files(files)[0])


def asked(hospital: Path) -> bool:
    log = audit_file(hospital / "work")
    return log.exists() and '"event": "request"' in log.read_text()


def events(folder: Path) -> list[dict[str, object]]:
    file = folder / "history.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_keeps_its_code_and_its_sites(
    federation: Deployed, simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights as simulated, bit for bit; a site that was not expected is sent nothing, and is named."""
    run, code = Run(federation.folder / "runs" / "one"), federation.folder / "code.fab"
    expected = f"round.expected=[{','.join(INVITED)}]"
    words = ("run", f"federation={federation.folder}", "name=one", *SETTINGS, expected)
    assert federation.command(*words).wait() == 0
    until(lambda: run.finished_rounds() >= 1 or run.ended(), "the first round", ROUNDS)
    assert federation.server is not None
    federation.server.send_signal(signal.SIGTERM)
    federation.server.wait(60)
    assert run.finished_rounds() < 2  # in the middle of it
    newer = other_code(code)
    # Nobody writes another version of gliofed for a test.
    monkeypatch.setattr("gliofed.server.provisioning.provision.build_code", lambda: newer)
    provision(federation.folder / "federation.yaml")
    assert code.read_bytes() == newer
    for site in INVITED:
        agree(federation.hospital(site), code)
    federation.start()
    until(lambda: events(run.folder)[-1]["event"] == "end", "the run ended", ROUNDS)
    assert run.ended() == {"event": "end", "status": "done"}, run.files.log.read_text()
    ours, theirs = (load_file(each / "model" / "model.safetensors") for each in (run.folder, simulated))
    assert_close(ours, theirs, rtol=0, atol=0)
    (other,) = set(ALL) - set(INVITED)
    lines = [event["sites"][other] for event in run.events() if event["event"] == "round"]
    assert [(line["status"], line["reason"]) for line in lines] == [("not_invited", "not in round.expected")] * 2
    assert [asked(federation.hospital(site)) for site in (*INVITED, other)] == [True, True, False]
    acts = [event["event"] for event in read_audit(audit_file(federation.folder)).events()]
    assert acts == ["provisioned", *["admitted"] * 3, "started", "run_submitted", "ended", "provisioned", "started"]
    sites = {site["name"]: site["round"] for site in federation.status()["sites"]}
    assert sites == {INVITED[0]: "counted", INVITED[1]: "counted", other: "not_invited"}
