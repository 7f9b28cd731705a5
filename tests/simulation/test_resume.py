"""A run that is killed at any point, and resumed, ends bit for bit where an undisturbed one ends."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from kill_and_resume import OF_SITES, kill_and_resume
from kill_private import kill_and_resume_twice
from plain_federation import sites_of
from small_run import USUAL, composed

from gliofed.client.doctor.manifest import admit
from gliofed.client.round.ledger import read_ledger
from gliofed.shared.messages import CODES
from gliofed.simulation.settings import parse_settings

POINT = "half-written-checkpoint"
MORE = (
    "asking",
    "first-reply-spooled",
    "evaluating",
    "folding",
    "checkpoint-saved",
    "refused-half-set-aside",
    "history-half-written",
    "last-model-exported",
)
ENDS = ("best-model-exported", "testing", "test-not-written")
"""Of plain FedAvg alone: with fedbn there is no best model, and another site may be refused, which is not tested."""
MECHANISMS = ("dp_sgd", "local_update", "central")
BUDGET = 8.0
"""privacy.epsilon, by default."""


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Kill and resume at all points that are asked for, beside one run that is left alone; and how each ended."""
    folder = tmp_path_factory.mktemp("runs")
    names = [item.name for item in request.session.items if "runs" in getattr(item, "fixturenames", ())]
    points = [point for point in (POINT, *MORE, *ENDS) if any(f"[{point}]" in name for name in names)]
    return folder, kill_and_resume(folder, points)


def rounds_of(out: Path) -> list[dict[str, Any]]:
    """The rounds and the test, without what depends on the clock."""
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    clock = dict.fromkeys(("seconds", "seconds_training", "seconds_evaluating"))
    return [{**event, **clock} for event in events if event["event"] in ("round", "test")]


@pytest.mark.slow
@pytest.mark.parametrize("point", [POINT, *MORE, *ENDS])
def test_killed_and_resumed_is_the_same(runs: tuple[Path, dict[str, int]], point: str) -> None:
    folder, ends = runs
    assert ends["undisturbed"] == 0
    assert ends[point] == -signal.SIGKILL
    undisturbed, resumed = folder / "undisturbed", folder / point
    groups = [f"checkpoints/round-0003/{group}.safetensors" for group in ("model", "optimizer", "average")]
    for file in ("model/model.safetensors", "best/model.safetensors", *groups):
        assert (resumed / file).read_bytes() == (undisturbed / file).read_bytes()
    assert rounds_of(resumed) == rounds_of(undisturbed)
    leftovers = [*resumed.rglob("*.tmp"), *resumed.glob("spool/*")]
    assert leftovers == []


KEPT = {
    "scaffold": ("algorithm=scaffold", "optimizer=sgd", "train.lr=0.05"),
    "fedbn, kept moments": ("algorithm=fedbn", "optimizer.moments=kept"),
    "fedprox, averaged moments": ("algorithm=fedprox", "optimizer.moments=averaged"),
    "as usual, averaged moments": USUAL,
    "adamw, averaged moments": (*USUAL, "optimizer=adamw"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", KEPT)
def test_a_method_that_is_killed_at_any_point_is_the_same(tmp_path: Path, method: str) -> None:
    """With all that sites keep, bit for bit: under the same names, which have the updates' hashes."""
    points = [POINT, *MORE, *(() if "averaged moments" in method else OF_SITES)]
    ends = kill_and_resume(tmp_path, points, KEPT[method])
    assert ends == {"undisturbed": 0} | dict.fromkeys(points, -signal.SIGKILL)
    wanted = tensors_of(tmp_path / "undisturbed")
    for point in points:
        found = tensors_of(tmp_path / point)
        assert found.keys() == wanted.keys() and all(found[name] == data for name, data in wanted.items()), point


def tensors_of(out: Path) -> dict[str, bytes]:
    """Every file of tensors that a run and its sites have, by its place; a run's id is another in each."""
    found = [
        path for place in ("model", "checkpoints", "sites/*/state") for path in out.glob(f"{place}/**/*.safetensors")
    ]
    return {re.sub("state/[^/]+", "state", str(path.relative_to(out))): path.read_bytes() for path in found}


def test_a_run_may_be_moved_with_its_data(tmp_path: Path) -> None:
    """Its sites' cohorts were frozen where they were; across hospitals only the hospital itself freezes anew."""
    values = composed("sites=2")
    run, _ = parse_settings(values)
    for folder in (tmp_path / "here", tmp_path / "there"):
        (site, _) = sites_of(values, run, folder)
        cases = admit(site, run.data, run.task).cases
        assert len(cases) == values["data"]["patients"]
        if folder.name == "here":
            folder.rename(tmp_path / "there")


def events_of(history: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in history.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_private_run_that_is_killed_in_a_round_ends_with_a_model(tmp_path: Path, mechanism: str) -> None:
    """Round 2 of 3 is charged twice, so that the budget is spent after it. Resumed again, it says the same."""
    assert kill_and_resume_twice(tmp_path, mechanism) == [-signal.SIGKILL, 3, 3]
    out, events = tmp_path / "out", events_of(tmp_path / "history-1.jsonl")
    end = events[-1]
    assert (end["event"], end["status"]) == ("end", "incomplete")
    assert "spent" in end["reason"] and end["reason"].endswith("the model is that of round 2")
    for resumed in ("resume-1.txt", "resume-2.txt"):
        assert f"incomplete: {end['reason']}, in {out}/model" in (tmp_path / resumed).read_text()
    assert (tmp_path / "history-2.jsonl").read_bytes() == (tmp_path / "history-1.jsonl").read_bytes()
    assert json.loads((out / "model/model.json").read_text())["round"] == 2
    saved = out / "checkpoints/round-0002/model.safetensors"
    assert (out / "model/model.safetensors").read_bytes() == saved.read_bytes()
    assert [event["round"] for event in events if event["event"] == "round"] == [1, 2]
    (failed,) = (event for event in events if event["event"] == "round_failed")
    if mechanism == "central":
        assert [event["of_round"] for event in events if event["event"] == "charge"] == [1, 2, 2]
        return
    charged = {}
    for work in sorted((out / "sites").iterdir()):
        ledger = read_ledger(work / "ledger")
        assert ledger is not None and ledger.epsilon() <= BUDGET and ledger.private
        charged[work.name] = [charge.round for charge in ledger.charges if charge.what == "train"]
    # The one whose reply was stored before the kill is charged for each round once; either may be first.
    again, once = sorted(charged, key=lambda site: charged[site])
    assert (charged[again], charged[once]) == ([1, 2, 2], [1, 2, 3])
    assert (failed["sites"][once]["status"], failed["sites"][again]["status"]) == ("counted", "declined")
    assert failed["sites"][again]["reason"] == CODES["budget"]
