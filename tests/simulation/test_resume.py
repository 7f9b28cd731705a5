"""A run that is killed at any point, and resumed, ends bit for bit where an undisturbed one ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from plain_federation import sites_of
from small_run import composed

from gliofed.client.doctor.manifest import admit
from gliofed.simulation.settings import parse_settings

HERE = Path(__file__).parent
POINTS = (
    "first-reply-spooled",
    "half-written-checkpoint",
    "evaluating",
    "refused-half-set-aside",
    "history-half-written",
)
MORE = ("asking", "folding", "checkpoint-saved", "last-model-exported")
"""Each beside one of those above, with the same on disk but for a file."""


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Kill and resume at every point that is asked for, in one go."""
    folder = tmp_path_factory.mktemp("runs")
    chosen = {str(word) for word in (*POINTS, *MORE) for item in request.session.items if f"[{word}]" in item.name}
    path = os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_and_resume.py"), str(folder), *sorted(chosen)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    ends: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return folder, ends


def rounds_of(out: Path) -> list[dict[str, Any]]:
    """The rounds, without what depends on the clock."""
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{**event, "seconds": None} for event in events if event["event"] == "round"]


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.slow) for point in MORE)])
def test_killed_and_resumed_is_the_same(runs: tuple[Path, dict[str, int]], point: str) -> None:
    folder, ends = runs
    assert ends["undisturbed"] == 0
    assert ends[point] == -signal.SIGKILL
    undisturbed, resumed = folder / "undisturbed", folder / point
    for file in ("model/model.safetensors", "checkpoints/round-0003/optimizer.safetensors"):
        assert (resumed / file).read_bytes() == (undisturbed / file).read_bytes()
    assert rounds_of(resumed) == rounds_of(undisturbed)
    leftovers = [*resumed.rglob("*.tmp"), *resumed.glob("spool/*")]
    assert leftovers == []


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
