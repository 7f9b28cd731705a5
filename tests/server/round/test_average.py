"""A moving average of the model over the rounds: what sites evaluate and the run leaves, beside what is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_federation import model_of, rounds_of
from safetensors.torch import load_file
from torch.testing import assert_close

from gliofed.server.round.history import History
from gliofed.server.round.state import State, load_state, save_state
from gliofed.shared.config import RunConfig
from gliofed.shared.weights import average_of_rounds
from gliofed.simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_it_is_the_weighted_mean_of_all_rounds(decay: float) -> None:
    """Those before count `decay` as much a round, and the weights add up to one: nothing is drawn towards zero."""
    rounds = list(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    average: dict[str, torch.Tensor] = {}
    for number, weights in enumerate(rounds, start=1):
        average = average_of_rounds(average, {"w": weights}, decay, number)
        parts = torch.tensor([decay ** (number - i) for i in range(1, number + 1)])
        expected = torch.stack(rounds[:number]).mul(parts[:, None]).sum(0) / parts.sum()
        assert_close(average["w"], expected, rtol=1e-5, atol=1e-6)
    if decay == 0:
        assert torch.equal(average["w"], rounds[-1])


def test_sites_evaluate_it_and_training_goes_on_without_it(values: Values, tmp_path: Path) -> None:
    outs = {}
    for name, words in {"plain": (), "averaged": ("strategy.average=0.5",)}.items():
        outs[name] = tmp_path / name
        assert simulate(values("sites=2", "rounds=2", *words, f"out={outs[name]}")).status == "done"
    trained = [
        load_file(outs["averaged"] / "checkpoints" / f"round-{number:04d}" / "model.safetensors") for number in (1, 2)
    ]
    assert_close(trained[-1], model_of(outs["plain"]), rtol=0, atol=0)
    expected = {
        name: (trained[0][name].double() / 3 + trained[1][name].double() * 2 / 3).float() for name in trained[0]
    }
    assert_close(model_of(outs["averaged"]), expected)
    (first, second), (first_plain, second_plain) = (rounds_of(outs[name]) for name in ("averaged", "plain"))
    assert first["global"] == first_plain["global"], "the average of one round is its model"
    assert second["global"] != second_plain["global"]
    assert second["sites"]["site-1"]["train"] == second_plain["sites"]["site-1"]["train"]


def test_a_checkpoint_has_it_only_where_there_is_one(tmp_path: Path) -> None:
    """One of before goes on, and one that lost it is damaged."""
    history = History(tmp_path / "history.jsonl")
    save_state(tmp_path, State(round=1, weights={"w": torch.ones(1)}))
    folder = tmp_path / "checkpoints" / "round-0001"
    assert sorted(file.name for file in folder.iterdir()) == [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    state = load_state(tmp_path, history)
    assert state is not None and state.average == {} and state.coded_result is state.coded
    save_state(tmp_path, State(round=2, weights={"w": torch.ones(1)}, average={"w": torch.zeros(1)}))
    state = load_state(tmp_path, history)
    assert state is not None and state.average == {"w": torch.zeros(1)} and state.coded_result != state.coded
    (tmp_path / "checkpoints" / "round-0002" / "average.safetensors").unlink()
    with pytest.raises(ValueError, match="round-0002: damaged"):
        load_state(tmp_path, history)


def test_a_run_without_it_is_what_it_was(run_config: Callable[..., RunConfig]) -> None:
    assert "average" not in json.loads(run_config().as_json)["strategy"]
    assert run_config("strategy.average=0.9").hash != run_config().hash
