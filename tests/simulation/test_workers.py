"""Threads that draw ahead are a site's own business: the weights are the same, bit for bit, with any number."""

import json
import signal
import threading
from pathlib import Path

import pytest
from forks import end_of, started
from kill_and_resume import POINTS
from method_oracle import Oracle
from small_run import SMALL, SMALL_GRADING, as_given

from gliofed.client.round.work import open_steps
from gliofed.shared.data.samples import Batch
from gliofed.simulation.simulate import simulate

RUNS = {
    "segmentation": (*SMALL, "data.size=[16,16,16]"),
    "grading": (*SMALL_GRADING, "train.augment.dropout=0.2"),
    "private": (*SMALL, "privacy=dp_sgd"),
}
OFTEN = ("augment=usual", "train.augment.chance=0.7", "train.steps=4", "sites=2")
SECRET = ("privacy.test_seed=0",)
"""Fresh noise would differ by itself."""


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_error_in_a_step_leaves_no_thread_that_draws(tmp_path: Path, error: type[BaseException]) -> None:
    """While somebody holds the error: where memory did not suffice the round is begun again at once."""
    job = Oracle(as_given(*SMALL, "sites=1", "workers=2"), tmp_path).job("site-1", 1)

    def change(batch: Batch) -> Batch:
        raise error

    with pytest.raises(error):
        open_steps(job, job.model(), change)
    assert job.workers == 2
    assert not [each for each in threading.enumerate() if each.name.startswith("ahead")]


def weights_of(out: Path) -> bytes:
    return (out / "model/model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_any_number_of_workers_makes_the_same_weights(tmp_path: Path, kind: str) -> None:
    """Also where a run is killed in round 2 and goes on with another number, which is no part of what was agreed."""
    words = (*RUNS[kind], *OFTEN, *(SECRET if kind == "private" else ()), f"data.root={tmp_path / 'data'}")
    hashes = set()
    for workers in ("null", "0", "1", "3"):
        out = tmp_path / workers
        simulate(as_given(*words, f"workers={workers}", f"out={out}"))
        hashes.add(json.loads((out / "run.json").read_text())["config_hash"])
        assert weights_of(out) == weights_of(tmp_path / "null"), workers
    assert len(hashes) == 1
    if kind == "private":  # a resumed one is charged again, and may not end
        return
    killed = tmp_path / "killed"
    values = as_given(*words, "workers=1", f"out={killed}")
    assert end_of(started(simulate, values, killed=POINTS["half-written-checkpoint"])) == -signal.SIGKILL
    run = json.loads((killed / "run.json").read_text())
    run["simulation"]["workers"] = 3
    (killed / "run.json").write_text(json.dumps(run))
    assert simulate(as_given(f"resume={killed}")).status == "done"
    assert weights_of(killed) == weights_of(tmp_path / "null")
