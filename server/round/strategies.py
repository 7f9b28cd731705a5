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


class ServerStep:
    """One step of the server's optimiser, with a state that can be saved by name."""

    def __init__(self, parameters: Mapping[str, Tensor], config: StrategyConfig, state: Mapping[str, Tensor]) -> None:
        """Start with the named parameters and, after a resume, the saved `state`."""
        self.parameters = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        self._optimizer = STRATEGIES[config.name](list(self.parameters.values()), config)
        for key, tensor in state.items():
            kind, name = key.split("/", 1)
            self._optimizer.state[self.parameters[name]][kind] = tensor.clone()

    def step(self, update: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move the parameters along the mean update; return them."""
        for name, tensor in self.parameters.items():
            tensor.grad = -update[name]
        self._optimizer.step()
        return {name: tensor.detach().clone() for name, tensor in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's tensors as `kind/parameter`; plain SGD has none."""
        return {
            f"{kind}/{name}": torch.as_tensor(value)
            for name, tensor in self.parameters.items()
            for kind, value in self._optimizer.state[tensor].items()
            if value is not None
        }
