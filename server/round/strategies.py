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


def nesterov(weights: list[Tensor], config: StrategyConfig) -> Optimizer:
    """SGD with Nesterov's momentum, the outer step of DiLoCo (Douillard et al. 2023, arXiv:2311.08105)."""
    return SGD(weights, lr=config.lr, momentum=config.momentum, nesterov=True)


class Yogi(Adam):
    """Adam whose second moment moves by no more than the new square (Zaheer et al. 2018, algorithm 2).

        v <- v - (1 - beta2) sign(v - g^2) g^2

    So it forgets large updates slowly where small ones follow.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; bias is corrected as Adam's."""
        for group in self.param_groups:
            (beta1, beta2), rate, eps = group["betas"], group["lr"], group["eps"]
            for weight in group["params"]:
                gradient, state = weight.grad, self.state[weight]
                zero = torch.zeros_like(weight)
                count = state["step"] = state.get("step", torch.tensor(0.0)) + 1
                first = state["exp_avg"] = beta1 * state.get("exp_avg", zero) + (1 - beta1) * gradient
                old, square = state.get("exp_avg_sq", zero), gradient.square()
                second = state["exp_avg_sq"] = old - (1 - beta2) * (old - square).sign() * square
                weight -= rate * (first / (1 - beta1**count)) / ((second / (1 - beta2**count)).sqrt() + eps)


def fedyogi(weights: list[Tensor], config: StrategyConfig) -> Optimizer:
    """Yogi, with the settings of fedadam."""
    return Yogi(weights, lr=config.lr, betas=(config.momentum, config.beta2), eps=config.tau)


STRATEGIES: dict[str, Callable[[list[Tensor], StrategyConfig], Optimizer]] = {
    "fedavg": fedavg,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "nesterov": nesterov,
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
