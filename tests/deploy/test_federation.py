"""Three hospitals with gliofed at both ends, on phantoms: what comes of a run, and what left a hospital for it."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed_federation import Deployed, settle
from judged_site import train
from plain_federation import sites_of
from safetensors.torch import load_file
from small_federation import rewrite
from small_run import PLAIN, as_given
from tls_recorder import Recorder
from torch.testing import assert_close
from waiting import until

from gliofed.server.round.clip import Clipped
from gliofed.server.round.fold import Share, weighted_mean
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import CodedUpdate, travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data.cases import split
from gliofed.shared.messages import Request
from gliofed.shared.parse import parse
from gliofed.simulation.simulate import simulate

pytestmark = pytest.mark.deploy

SITES = ("site-1", "site-2", "site-3")
ROUNDS = 900.0
SETTINGS = (
    *("model=unet", "data=phantom", "data.resolution=8", "data.patients=4", "data.patch=[16,16,16]"),
    *("rounds=2", "train.steps=2", "round.join=180", "round.deadline=300", *PLAIN),
)
BROKEN = "BraTS20_Training_999"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in one process; its folder has the sites' scans as well."""
    out = tmp_path_factory.mktemp("simulated") / "out"
    simulate(as_given("sites=3", *SETTINGS, f"out={out}"))
    return out


@pytest.fixture(scope="module")
def federation(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployed, Recorder]]:
    """Hospitals with the simulation's names and scans, started by their own command; the first one's wire is tapped."""
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("nginx is not installed")
    made = Deployed(tmp_path_factory.mktemp("deployed"), SITES)
    made.provision()
    broken = simulated / "data" / SITES[0] / BROKEN
    broken.mkdir()
    for kind in ("flair", "t1", "t1ce", "t2", "seg"):
        (broken / f"{BROKEN}_{kind}.nii.gz").write_bytes(b"no image")
    for site in SITES:
        made.admit(site)
        settle(made.hospital(site), simulated / "data" / site)
    made.start()
    with Recorder(made.folder, made.port, made.root / "recorder") as tap:
        rewrite(made.hospital(SITES[0]) / "kit.json", address=f"127.0.0.1:{tap.port}")
        try:
            for site in SITES:
                made.hospital_start(site)
            for site in SITES:
                until(lambda site=site: made.connected(site), f"{site} connected")
            yield made, tap
        finally:
            made.end()


def test_a_run_across_machines(federation: tuple[Deployed, Recorder], simulated: Path) -> None:
    """The weights are the simulation's, bit for bit; the logs of all ends hold each other; no name has left."""
    made, tap = federation
    words = ("run", f"federation={made.folder}", "name=paediatric", *SETTINGS)
    assert made.command(*words).wait() == 0
    run = made.folder / "runs" / "paediatric"
    until(lambda: ended(run), "the run ended", ROUNDS)
    assert ended(run) == "done", (run / "server.log").read_text()
    ours, theirs = (load_file(each / "model" / "model.safetensors") for each in (run, simulated))
    assert_close(ours, theirs, rtol=0, atol=0)
    for site in SITES:
        work, copy = made.hospital(site) / "work", made.root / f"{site}.jsonl"
        assert made.command("audit", "verify", run, "--site", work).wait() == 0
        with copy.open("wb") as file:
            assert made.command("audit", "copy", run, "--site", site, stdout=file).wait() == 0
        verify = made.client("audit", "verify", work, "--server", copy, stdout=subprocess.PIPE)
        said = verify.communicate()[0].decode()
        assert verify.returncode == 0
        assert re.search("requests of the server signed with SHA256:[^ ]+: [1-9]", said)
        assert re.search(f"replies of {site} signed with SHA256:[^ ]+: [1-9]", said)
        assert "is that its key" not in said and "unsigned" not in said
        assert not [other for other in SITES if other != site and other in copy.read_text()]
    left = tap.sent()
    # What is looked for would be seen: updates are whole in it, and the site's own name is.
    assert len(left) > 2 * sum(weight.nbytes for weight in ours.values())
    assert SITES[0].encode() in left
    scans = simulated / "data" / SITES[0]
    names = {path.name for path in scans.rglob("*")} | {path.stem for path in scans.rglob("*")} | {BROKEN}
    told = [name for name in (*names, str(simulated), str(made.hospital(SITES[0]))) if name.encode() in left]
    assert len(names) > 20 and told == []
    came, submission = tap.came(), json.loads((run.parent / "submitted.json").read_text())["submission"]
    assert submission.encode() in came  # so Flower's words about the run are in it
    assert b"paediatric" not in came and str(made.folder).encode() not in came


LIAR = '''
import importlib.util
import sys


class Liar:
    """Once the app is imported, its site lies, whatever code the hospital approved."""

    def find_spec(self, name, path=None, target=None):
        if name != "gliofed.client.app":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            work = module._work
            module._work = lambda *words: false(work(*words))

        spec.loader.exec_module = load_and_change
        return spec


def false(reply):
    from dataclasses import replace

    from safetensors.torch import load
    from gliofed.shared.codec import encode

    update = reply.update and encode({name: 0 * tensor for name, tensor in load(reply.update).items()}, "fp32")
    return replace(reply, patients=10**9, metrics=dict.fromkeys(reply.metrics, 1.0), update=update)


sys.meta_path.insert(0, Liar())
'''
"""Of a Python that imports it at its start. Who runs a hospital's programs can make them say anything."""


def test_a_hospital_that_lies_counts_as_many_patients_as_agreed(
    federation: tuple[Deployed, Recorder], simulated: Path, tmp_path: Path
) -> None:
    """It claims a billion patients and perfect metrics, and sends zeros."""
    made, _ = federation
    made.hospital_end(SITES[2])
    (tmp_path / "sitecustomize.py").write_text(LIAR)
    liar = made.node(SITES[2], PYTHONPATH=str(tmp_path))
    until(lambda: made.connected(SITES[2]), "the one that lies connected")
    words = ("run", f"federation={made.folder}", "name=claim", *SETTINGS, "rounds=1")
    assert made.command(*words).wait() == 0
    run = made.folder / "runs" / "claim"
    until(lambda: ended(run), "the run ended", ROUNDS)
    os.killpg(liar.pid, signal.SIGTERM)
    liar.wait()
    made.hospital_start(SITES[2])
    assert ended(run) == "done", (run / "server.log").read_text()
    (event,) = (json.loads(line) for line in (run / "history.jsonl").read_text().splitlines() if '"round",' in line)
    line = event["sites"][SITES[2]]
    assert (line["status"], line["claimed"], line["patients"], line["evaluate"]) == ("counted", 10**9, 100, None)
    assert (line["share"], event["global"]["dice"] < 1) == (0.5, True)
    shown = next(site for site in made.status()["sites"] if site["name"] == SITES[2])
    assert "claimed 1000000000 patients, counted as 100" in shown["reason"]

    # The same round with its number as agreed: as much as the two others together, by fold.max_share.
    values = as_given("sites=3", *SETTINGS, f"data.root={simulated / 'data'}")
    config = parse(RunConfig, json.loads((run / "run.json").read_text())["run"])
    weights = travelling(initial_model(config))
    request = Request(run_id="oracle", round=1, config=config, weights=weights_to_bytes(weights))
    shares, patients = [], 0
    for site in sites_of(values, config, tmp_path / "oracle")[:2]:
        reply = train(site, request)
        (tmp_path / site.name).write_bytes(reply.update)
        shares.append(Share(CodedUpdate(tmp_path / site.name, "fp32"), reply.patients))
        patients += reply.patients
    zero = Clipped(shares[0].update, dict.fromkeys(weights, 0.0), {})
    mean = weighted_mean([*shares, Share(zero, patients)], weights)
    expected = {name: tensor + mean[name] for name, tensor in weights.items()}
    assert_close(load_file(run / "model" / "model.safetensors"), expected, rtol=0, atol=0)
    until(lambda: made.connected(SITES[2]), "the honest one is back")


def test_a_patient_withdraws_while_start_runs(federation: tuple[Deployed, Recorder], simulated: Path) -> None:
    """The next run trains without them, and nothing of them is left in the work folder; the log still holds."""
    made, _ = federation
    first, second, site = made.folder / "runs" / "paediatric", made.folder / "runs" / "second", SITES[1]
    names = sorted(path.name for path in (simulated / "data" / site).iterdir() if path.is_dir())
    patient, work = split(names, validation=0.2, seed=0)[0][0], made.hospital(site) / "work"
    told = subprocess.PIPE
    said, _ = made.client("withdraw", patient, made.hospital(site), "--yes", stdout=told).communicate()
    assert f"trained with {patient}: run {json.loads((first / 'run.json').read_text())['run_id']}" in said.decode()
    assert made.command("run", f"federation={made.folder}", "name=second", *SETTINGS).wait() == 0
    until(lambda: ended(second), "the run ended", ROUNDS)
    assert trained(second, site) == [patients - 1 for patients in trained(first, site)]
    assert trained(second, SITES[2]) == trained(first, SITES[2])
    files = [path for path in work.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if patient in str(path) or patient.encode() in path.read_bytes()] == []
    assert made.client("audit", "verify", work, "--server", second).wait() == 0


def trained(run: Path, site: str) -> list[int]:
    """Patients that a site told of, round by round."""
    events = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [event["sites"][site]["patients"] for event in events if event["event"] == "round"]


def ended(run: Path) -> str | None:
    """The status of the last event, if that is an end."""
    file = run / "history.jsonl"
    last = json.loads(file.read_text().splitlines()[-1]) if file.exists() and file.read_text() else {}
    return last["status"] if last.get("event") == "end" else None
