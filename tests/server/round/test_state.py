"""What a run that was killed goes on from, and what it must not take up again."""

from pathlib import Path
from shutil import rmtree

import pytest
import torch

from gliofed.server.round.history import History
from gliofed.server.round.state import State, load_state, save_state


@pytest.mark.parametrize(("removed", "newest"), [([], 10), ([10], 9), ([9, 10], 0)])
def test_only_answers_to_the_weights_that_it_goes_on_from_stay(tmp_path: Path, removed: list[int], newest: int) -> None:
    """A checkpoint that is damaged is removed by hand; the round after it had begun, from weights that are gone."""
    for number in (9, 10):
        save_state(tmp_path, State(round=number, weights={"w": torch.ones(1)}))
    for number in (1, 9, 10, 11, 12):
        (tmp_path / "spool" / f"round-{number:04d}").mkdir(parents=True)
    for number in removed:
        rmtree(tmp_path / "checkpoints" / f"round-{number:04d}")
    state = load_state(tmp_path, History(tmp_path / "history.jsonl"))
    assert (state.round if state else 0) == newest
    assert [folder.name for folder in (tmp_path / "spool").iterdir()] == [f"round-{newest + 1:04d}"]
