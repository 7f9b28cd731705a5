"""Runs that start from the weights of others, and what of them travels on."""

import hashlib
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import end_of
from kill_and_resume import resume, run
from plain_federation import model_of, rounds_of, sites_of
from small_run import composed

from gliofed.server.link.runs import new_run
from gliofed.server.round.given import read_given
from gliofed.server.round.sites import Federation
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError, parse
from gliofed.simulation.attacks.inversion import _open
from gliofed.simulation.attacks.settings import AttackConfig
from gliofed.simulation.attacks.shadows import train_shadows
from gliofed.simulation.attacks.target import open_target
from gliofed.simulation.cli import main
from gliofed.simulation.local_engine import run_here
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

WORDS = ("sites=2", "data.patients=4", "data.validation=0.5", "train.steps=1")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of three runs on the same patients, each from the model of the one before; the first averages rounds."""
    folder = tmp_path_factory.mktemp("chain")
    for name, *words in (
        ("a", "strategy.average=0.5", "data.split_seed=1"),
        ("b", f"init={folder / 'a'}", "data.split_seed=1", "algorithm=fedprox"),
        ("c", f"init={folder / 'b/model'}", "data.split_seed=1", "rounds=1", "model.dropout=0.1"),
    ):
        simulate(composed(*WORDS, *words, f"data.root={folder / 'data'}", f"out={folder / name}"))
    return folder


def initial_of(out: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "initial"]


@pytest.mark.parametrize(("before", "after"), ["ab", "bc"])
def test_round_0_has_the_scores_of_the_model_that_was_given(chain: Path, before: str, after: str) -> None:
    """To the last digit: the same weights, on the same patients."""
    last, (initial,) = rounds_of(chain / before)[-1], initial_of(chain / after)
    assert last["global"]["dice"] is not None and initial["global"] == last["global"]
    for site, line in last["sites"].items():
        for key in ("status", "evaluate", "evaluated"):
            assert initial["sites"][site][key] == line[key]
    assert all(line["evaluated"] for line in initial["sites"].values())
    assert initial_of(chain / "a") == []


def test_the_provenance_of_three_runs_reads_right(chain: Path) -> None:
    found = json.loads((chain / "c/model/provenance.json").read_text())
    assert [found[:1], found[:2]] == [
        json.loads((chain / name / "model/provenance.json").read_text()) for name in ("a", "b")
    ]
    for entry, name, rounds in zip(found, "abc", (2, 2, 1), strict=True):
        saved = json.loads((chain / name / "run.json").read_text())
        assert (entry["run_id"], entry["config_hash"]) == (saved["run_id"], saved["config_hash"])
        weights = (chain / name / "model/model.safetensors").read_bytes()
        assert entry["weights_sha256"] == hashlib.sha256(weights).hexdigest()
        assert (entry["sites"], entry["round"], entry["rounds"]) == (2, rounds, rounds)
        counts = [line for line in rounds_of(chain / name)[0]["sites"].values()]
        wanted = {"training": sum(line["patients"] for line in counts), "noisy": False}
        assert entry["patients"] == wanted | {"validation": sum(line["evaluated"] for line in counts)}
    assert [entry["init_sha256"] for entry in found] == [None, *(entry["weights_sha256"] for entry in found[:2])]
    assert [entry["algorithm"] for entry in found] == ["fedavg", "fedprox", "fedavg"]
    assert {entry["privacy"]["mechanism"] for entry in found} == {"none"}


def test_no_name_or_place_travels_with_a_model(chain: Path) -> None:
    for file in ("init/provenance.json", "model/provenance.json", "init/model.json", "model/model.json"):
        text = (chain / "c" / file).read_text()
        assert "site-" not in text and str(chain) not in text


def test_a_run_keeps_what_it_began_with(chain: Path) -> None:
    kept, given = ((chain / place / "model.safetensors").read_bytes() for place in ("c/init", "b/model"))
    assert kept == given
    saved = json.loads((chain / "c/run.json").read_text())
    assert saved["run"]["init"] == saved["simulation"]["init"] == hashlib.sha256(kept).hexdigest()


@pytest.mark.slow
def test_killed_and_resumed_without_the_run_before_is_the_same(tmp_path: Path) -> None:
    """Once in round 0, whose evaluation is done again, and once in round 2, after which it is not."""
    first, points = tmp_path / "first", ("given-weights-measured", "half-written-checkpoint")
    assert end_of(run(tmp_path, "first", ("rounds=1",))) == 0
    words = (f"init={first}",)
    assert end_of(run(tmp_path, "undisturbed", words)) == 0
    killed = [run(tmp_path, point, words) for point in points]
    assert list(map(end_of, killed)) == [-signal.SIGKILL] * 2
    assert [len(initial_of(tmp_path / point)) for point in points] == [0, 1]
    shutil.rmtree(first)
    resumed = [resume(tmp_path / point) for point in points]
    assert list(map(end_of, resumed)) == [0, 0]
    wanted = (tmp_path / "undisturbed/model/model.safetensors").read_bytes()
    (initial,) = initial_of(tmp_path / "undisturbed")
    for point in points:
        assert (tmp_path / point / "model/model.safetensors").read_bytes() == wanted
        (again,) = initial_of(tmp_path / point)
        assert again | {"seconds": 0} == initial | {"seconds": 0}


def test_a_file_alone_is_said_once_and_begins_the_provenance(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Path(shutil.copy(chain / "a/model/model.safetensors", tmp_path / "net.safetensors"))
    simulate(composed(*WORDS, "rounds=1", "round.evaluate_every=0", f"init={bare}", f"out={tmp_path / 'out'}"))
    assert capsys.readouterr().err.count(f"init={bare}: no model.json beside it") == 1
    origin, own = json.loads((tmp_path / "out/model/provenance.json").read_text())
    assert (origin["origin"], own["init_sha256"]) == ("file", origin["weights_sha256"])
    assert initial_of(tmp_path / "out") == []


def test_what_cannot_be_given_leaves_nothing(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=unet", f"init={chain / 'a'}", "model.preset=tiny", f"out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["gliofed-simulate", *words])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1
    assert f"init={chain / 'a'}: was trained with model.preset=demo, and this run has model.preset=tiny" in said
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_no_cases_leaves_no_weights(chain: Path, tmp_path: Path) -> None:
    """Else the next run in this folder, with nothing given, would have an init/ that is not its own."""
    other = (*WORDS, "data.patients=5", f"data.root={chain / 'data'}")
    with pytest.raises(ConfigError):
        simulate(composed(*other, f"init={chain / 'a'}", f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out/init").exists() and not (tmp_path / "out/run.json").exists()


@pytest.mark.slow
def test_attacks_know_what_a_run_began_with(chain: Path, tmp_path: Path) -> None:
    """A shadow model starts where the run started, and what was seen of round 1 was made from those weights."""
    settings = AttackConfig(shadows=4, device="cpu")
    target = open_target(chain / "b", settings)
    given = model_of(chain / "a")
    model = _open(target, 0).model.state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in given.items())
    shadow = next(train_shadows(target, settings, tmp_path))
    assert shadow.model.run == target.run and shadow.model.weights != target.weights


def test_a_submitted_run_trains_from_its_folder_alone(chain: Path, tmp_path: Path) -> None:
    """As across machines, where the aggregator's command makes the folder and a server that starts later trains."""
    values = composed(*WORDS, "data.split_seed=1", f"data.root={chain / 'data'}", "rounds=1")
    weights = read_given(chain / "b")
    assert weights is not None
    config, _ = parse_settings({**values, "init": weights.sha256})
    made = new_run(tmp_path, "second", config, [], b"code", weights)
    config = parse(RunConfig, made.saved()["run"])
    run_here(
        Federation(config=config, out=made.folder, run_id="second"), sites_of(values, config, tmp_path / "work"), 1
    )
    ((initial,), last) = initial_of(made.folder), rounds_of(chain / "b")[-1]
    assert initial["global"] == last["global"]
    assert len(json.loads((made.folder / "model/provenance.json").read_text())) == 3
