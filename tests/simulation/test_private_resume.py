"""A private run that is killed in the middle of a round: its budget is spent early, and it ends with a model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gliofed.client.round.ledger import read_ledger
from gliofed.shared.messages import CODES

HERE = Path(__file__).parent
BUDGET = 8.0
"""privacy.epsilon, by default."""


MECHANISMS = ("dp_sgd", "local_update", "central")


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """Kill and resume a run of each mechanism that is asked for, in one go."""
    folder = tmp_path_factory.mktemp("private")
    chosen = [word for word in MECHANISMS if any(f"[{word}]" in item.name for item in request.session.items)]
    path = os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_private.py"), str(folder), *chosen],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ends: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return folder, ends


def events_of(history: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in history.read_text().splitlines()]


@pytest.mark.parametrize(
    "mechanism", ["dp_sgd", *(pytest.param(word, marks=pytest.mark.slow) for word in MECHANISMS[1:])]
)
def test_a_private_run_that_is_killed_in_a_round_ends_with_a_model(
    runs: tuple[Path, dict[str, list[int]]], mechanism: str
) -> None:
    """Round 2 of 3 is charged twice, so that the budget is spent after it. Resumed again, it says the same."""
    folder = runs[0] / mechanism
    assert runs[1][mechanism] == [-signal.SIGKILL, 3, 3]
    out, events = folder / "out", events_of(folder / "history-1.jsonl")
    end = events[-1]
    assert (end["event"], end["status"]) == ("end", "incomplete")
    assert "spent" in end["reason"] and end["reason"].endswith("the model is that of round 2")
    for resumed in ("resume-1.txt", "resume-2.txt"):
        assert f"incomplete: {end['reason']}, in {out}/model" in (folder / resumed).read_text()
    assert (folder / "history-2.jsonl").read_bytes() == (folder / "history-1.jsonl").read_bytes()
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
