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
    "fedyogi": StrategyConfig(name="fedyogi", lr=0.1, momentum=0.9),
    "nesterov": StrategyConfig(name="nesterov", lr=0.7, momentum=0.9),
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


def test_nesterov_is_that_of_diloco() -> None:
    """v <- 0.9 v + update; w <- w + 0.7 (update + 0.9 v)."""
    weights: dict[str, Tensor] = {"w": torch.zeros(2)}
    state: dict[str, Tensor] = {}
    weight = velocity = torch.zeros(2)
    for update in UPDATES:
        velocity = 0.9 * velocity + update["w"]
        weight = weight + 0.7 * (update["w"] + 0.9 * velocity)
        weights, state = server_step(weights, update, CONFIGS["nesterov"], state)
        assert_close(weights["w"], weight)


def test_fedyogi_is_zaheer_2018() -> None:
    """Value by value; where an update is smaller than what v remembers, v falls by its square and not by a share."""
    weights: dict[str, Tensor] = {"w": torch.zeros(2)}
    state: dict[str, Tensor] = {}
    w, m, v = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for t, update in enumerate([{"w": tensor([30.0, -2.0])}, *UPDATES], start=1):
        for i, d in enumerate(update["w"].tolist()):
            m[i] = 0.9 * m[i] + 0.1 * d
            v[i] += 0.01 * d**2 if v[i] < d**2 else -0.01 * d**2
            w[i] += 0.1 * (m[i] / (1 - 0.9**t)) / ((v[i] / (1 - 0.99**t)) ** 0.5 + 1e-3)
        weights, state = server_step(weights, update, CONFIGS["fedyogi"], state)
        assert_close(weights["w"], tensor(w))


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
