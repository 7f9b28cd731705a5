"""The server's step against the papers' formulas."""

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from gliofed.server.round.strategies import STRATEGIES, ServerStep
from gliofed.shared.config import StrategyConfig

CONFIGS = {
    "fedavg": StrategyConfig(name="fedavg", lr=1.0),
    "fedavgm": StrategyConfig(name="fedavgm", lr=0.5, momentum=0.9),
    "fedadam": StrategyConfig(name="fedadam", lr=0.1, momentum=0.9),
}
UPDATES = [{"w": tensor([1.0, -2.0])}, {"w": tensor([0.5, 3.0])}, {"w": tensor([-1.0, 1.0])}]


def test_fedavg_adds_the_mean_update() -> None:
    step = ServerStep({"w": tensor([1.0, 1.0])}, CONFIGS["fedavg"], {})
    assert_close(step.step(UPDATES[0])["w"], tensor([2.0, -1.0]), rtol=0, atol=0)


def test_fedavgm_is_hsu_2019() -> None:
    """v <- 0.9 v + update; w <- w + 0.5 v."""
    step = ServerStep({"w": torch.zeros(2)}, CONFIGS["fedavgm"], {})
    weight = velocity = torch.zeros(2)
    for update in UPDATES:
        velocity = 0.9 * velocity + update["w"]
        weight = weight + 0.5 * velocity
        assert_close(step.step(update)["w"], weight)


@pytest.mark.parametrize("name", STRATEGIES)
def test_saved_and_loaded_after_any_round_goes_on_the_same(name: str) -> None:
    straight = ServerStep({"w": torch.zeros(2)}, CONFIGS[name], {})
    weights: dict[str, Tensor] = {"w": torch.zeros(2)}
    state: dict[str, Tensor] = {}
    for update in UPDATES:
        resumed = ServerStep(weights, CONFIGS[name], state)
        weights, state = resumed.step(update), resumed.state()
        assert_close(weights, straight.step(update), rtol=0, atol=0)
