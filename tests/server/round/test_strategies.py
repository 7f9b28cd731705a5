"""The server's step against the papers' formulas."""

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from gliofed.server.round.strategies import STRATEGIES, server_step
from gliofed.shared.config import StrategyConfig

CONFIGS = {
    "fedavg": StrategyConfig(name="fedavg", lr=1.0),
    "fedavgm": StrategyConfig(name="fedavgm", lr=0.5, momentum=0.9),
    "fedadam": StrategyConfig(name="fedadam", lr=0.1, momentum=0.9),
}
UPDATES = [{"w": tensor([1.0, -2.0])}, {"w": tensor([0.5, 3.0])}, {"w": tensor([-1.0, 1.0])}]


def test_fedavg_adds_the_mean_update() -> None:
    moved, state = server_step({"w": tensor([1.0, 1.0])}, UPDATES[0], CONFIGS["fedavg"], {})
    assert_close(moved["w"], tensor([2.0, -1.0]), rtol=0, atol=0)
    assert state == {}


def test_fedavgm_is_hsu_2019() -> None:
    """v <- 0.9 v + update; w <- w + 0.5 v."""
    weights: dict[str, Tensor] = {"w": torch.zeros(2)}
    state: dict[str, Tensor] = {}
    weight = velocity = torch.zeros(2)
    for update in UPDATES:
        velocity = 0.9 * velocity + update["w"]
        weight = weight + 0.5 * velocity
        weights, state = server_step(weights, update, CONFIGS["fedavgm"], state)
        assert_close(weights["w"], weight)


@pytest.mark.parametrize("name", STRATEGIES)
def test_saved_and_loaded_after_any_round_goes_on_the_same(name: str) -> None:
    """As one optimiser does that lives through all rounds."""
    straight = torch.zeros(2)
    optimizer = STRATEGIES[name]([straight], CONFIGS[name])
    weights: dict[str, Tensor] = {"w": torch.zeros(2)}
    state: dict[str, Tensor] = {}
    for update in UPDATES:
        weights, state = server_step(weights, update, CONFIGS[name], state)
        straight.grad = -update["w"]
        optimizer.step()
        assert_close(weights["w"], straight, rtol=0, atol=0)
