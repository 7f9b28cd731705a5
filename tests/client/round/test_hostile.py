"""A server that means harm: each of its requests is refused by one code, before memory is taken."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest

from gliofed.shared.config import RunConfig

pytestmark = pytest.mark.slow

ROOM = 50
"""MB above the idle program's, for any request."""


@pytest.fixture(scope="module")
def asked() -> dict[str, Any]:
    """What came of all of them, in a process of their own."""
    root = str(Path(hostile.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run([sys.executable, hostile.__file__], env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def test_there_are_sixty_configs(run_config: Callable[..., RunConfig]) -> None:
    assert len(hostile.configs(run_config())) >= 60


def test_one_code_leaves(asked: dict[str, Any]) -> None:
    """Nobody learns by them what the hospital has; an honest request goes on to the data."""
    assert asked["honest"] == "no_cases"
    odd = {name: found["codes"] for name, found in asked["found"].items() if found["codes"] != ["protocol"]}
    assert not odd


def test_the_log_has_a_sentence_for_each(asked: dict[str, Any]) -> None:
    lines = asked["lines"][1:]  # the first is of the honest one
    assert len(lines) == len(asked["found"])
    assert all("ERROR train refused: " in line and len(line) < 1000 for line in lines)


def test_nothing_is_built(asked: dict[str, Any]) -> None:
    """No parameter that has memory; nor is PyTorch's compiler loaded, which drawing one without memory would do."""
    assert asked["built"] == []
    assert not asked["compiler"]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_memory_stays(asked: dict[str, Any]) -> None:
    assert {name: found["megabytes"] for name, found in asked["found"].items() if found["megabytes"] > ROOM} == {}


@pytest.mark.parametrize(
    ("policy", "limit"),
    [({"max_parameters": 80_672}, "policy.max_parameters"), ({"max_step_voxels": 1023}, "policy.max_step_voxels")],
)
@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
def test_the_policy_narrows_the_limits(
    run_config: Callable[..., RunConfig], tmp_path: Path, policy: dict[str, int], limit: str, kind: str
) -> None:
    """By one below what the run needs; with as much as that the hospital looks for its cases."""
    sent = hostile.records(run_config())
    strict = hostile.Hospital(tmp_path / "strict", **policy)
    assert strict.answer(sent, kind) == "policy"
    [line] = strict.log.read_text().splitlines()
    allowed = next(iter(policy.values()))
    assert f"{allowed + 1} " in line and line.endswith(f"{limit} allows {allowed}")
    content = {name: value + 1 for name, value in policy.items()}
    assert hostile.Hospital(tmp_path / "content", **content).answer(sent, kind) == "no_cases"
