"""The same run on Ray; about a minute, most of it Ray's start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import SMALL

pytestmark = pytest.mark.ray


def simulate(out: Path, *overrides: str) -> int:
    """Run in a process of its own: Ray starts once a process, and its threads stay."""
    command = [str(Path(sys.executable).with_name("gliofed-simulate")), *SMALL, "sites=3", *overrides, f"out={out}"]
    return subprocess.run(command, env=os.environ, timeout=600, check=False).returncode


def test_both_engines_give_the_same_weights(tmp_path: Path) -> None:
    """Bit for bit, at one seed and one thread; the cluster's tests do it with another method."""
    words = ("algorithm=fedbn", "optimizer.moments=kept")
    assert simulate(tmp_path / "ray", "engine=ray", *words) == 0
    assert simulate(tmp_path / "local", *words) == 0
    file = "model/model.safetensors"
    assert (tmp_path / "ray" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()


def test_a_site_that_hangs_does_not_hold_the_run(tmp_path: Path) -> None:
    """Its task is ended, and the others have their turns. On a busy machine they begin slowly."""
    assert simulate(tmp_path, "engine=ray", "faults={site-2:hang}", "round.deadline=90", "rounds=2") == 3
    rounds = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()][1:-1]
    assert [event["sites"]["site-2"]["status"] for event in rounds] == ["late", "not_asked"]
    assert [event["sites"]["site-3"]["status"] for event in rounds] == ["counted", "counted"]
