"""A named subset of `make faults`, which takes an hour: what is killed and cut must end in a finished run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.__main__ import PATIENCE

pytestmark = pytest.mark.deploy
ROOT = Path(__file__).parents[2]
NAMES = {
    "kill -9 of the ClientApp, training",
    "kill -9 of the ServerApp, transferring",
    "large updates, kill -9 of the nginx, transferring",
}


def test_a_federation_survives_what_is_done_to_it(tmp_path: Path) -> None:
    """In namespaces of its own; without the rights for them the test is skipped, by name."""
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "tc", "qdisc"], check=False
    )
    if tried.returncode:
        pytest.skip("needs root, Linux' namespaces and iproute2")
    words = [sys.executable, "-m", "tests.faults", "--out", tmp_path, *(f"={name}" for name in NAMES)]
    # Each run has this patience of its own: on a busy machine the three took 26 minutes, on a quiet one 8.
    subprocess.run(list(map(str, words)), cwd=ROOT, check=True, timeout=len(NAMES) * PATIENCE)
    results = {result["name"]: result for result in map(_read, tmp_path.glob("*.json"))}
    assert results.keys() == NAMES
    for name, result in results.items():  # a reply that was lost is asked for again, within the round
        assert (name, result["status"], result["wrong"], result["missed"]) == (name, "done", [], None)
        assert result["uncounted"] == []


def _read(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_text()))
