"""The folded update is a pseudo-gradient for one of PyTorch's optimisers (Reddi et al. 2021, arXiv:2003.00295)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from gliofed.shared.config import StrategyConfig


def fedavg(weights: list[Tensor], config: StrategyConfig) -> Optimizer:
    """SGD; with lr 1 the new weights are the weighted mean of the sites'."""
    return SGD(weights, lr=config.lr)


def fedavgm(weights: list[Tensor], config: StrategyConfig) -> Optimizer:
    """SGD with momentum (Hsu et al. 2019, arXiv:1909.06335)."""
    return SGD(weights, lr=config.lr, momentum=config.momentum)


def fedadam(weights: list[Tensor], config: StrategyConfig) -> Optimizer:
    """Adam; unlike the paper's it corrects the bias of the first rounds."""
    return Adam(weights, lr=config.lr, betas=(config.momentum, config.beta2), eps=config.tau)


STRATEGIES: dict[str, Callable[[list[Tensor], StrategyConfig], Optimizer]] = {
    "fedavg": fedavg,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
}


def average_of_rounds(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float | None, round: int
) -> dict[str, Tensor]:
    """Take a round's weights into the moving average of those of the rounds before; empty where `decay` is None.

    The average a_r is that of Kingma and Ba 2015 (arXiv:1412.6980, section 7.2), without the bias of its start at zero:

        a_r = sum of d^(r - i) w_i / sum of d^(r - i),  i = 1 ... r
            = a_(r-1) + (1 - d) / (1 - d^r) (w_r - a_(r-1))

    >>> average_of_rounds({"w": torch.tensor(3.0)}, {"w": torch.tensor(6.0)}, 0.5, 2)  # (0.5 * 3 + 6) / 1.5
    {'w': tensor(5.)}
    """
    if decay is None:
        return {}
    part = (1 - decay) / (1 - decay**round)
    return {name: average.get(name, new).double().lerp(new.double(), part).float() for name, new in weights.items()}


def server_step(
    parameters: Mapping[str, Tensor], update: Mapping[str, Tensor], config: StrategyConfig, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Move the parameters along the mean update; return them, and the optimiser's tensors as `kind/parameter`.

    `state` are those of the round before; plain SGD has none.
    """
    moved = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    optimizer = STRATEGIES[config.name](list(moved.values()), config)
    for key, tensor in state.items():
        kind, name = key.split("/", 1)
        optimizer.state[moved[name]][kind] = tensor.clone()
    for name, tensor in moved.items():
        tensor.grad = -update[name]
    optimizer.step()
    new_state = {
        f"{kind}/{name}": torch.as_tensor(value)
        for name, tensor in moved.items()
        for kind, value in optimizer.state[tensor].items()
        if value is not None
    }
    return {name: tensor.detach() for name, tensor in moved.items()}, new_state
