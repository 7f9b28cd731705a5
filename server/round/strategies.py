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
