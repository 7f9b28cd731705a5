"""Muon, for tensors of any shape; PyTorch's own is for matrices alone, and rounds to bf16."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gliofed.shared.algorithms.optimizers import matrix_of

COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
"""Of Newton and Schulz's iteration, as Muon has them: singular values come out between .7 and 1.2."""


class Muon(Optimizer):
    """Momentum whose singular values are all made about 1: a rare direction moves as far as a frequent one.

    With gradient G, momentum m and W of rows by columns:

        B <- m B + (1 - m) G,  U = m B + (1 - m) G,  W <- W (1 - rate decay) - rate sqrt(max(1, rows / columns)) NS(U)

    A convolution's rows are its output channels; a vector is a matrix of one row. So scaled, a step changes what a
    layer gives by about as much in a narrow model as in a wide one (Yang et al. 2023, arXiv:2310.17813).

    Where a tensor's whole gradient is zero, as of what tells which images are missing while none is, U is zero and B
    stays: else what other steps, or other sites, left in B would be a step of full length, however small it has become.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, with Nesterov's momentum.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, weight_decay: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": rate, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            rate, kept = group["lr"], group["momentum"]
            for weight in (each for each in group["params"] if each.grad is not None):
                state = self.state[weight]
                before = state.get("momentum_buffer", torch.zeros_like(weight))
                used = weight.grad.any()  # not as an `if`: that would wait for a GPU
                buffer = state["momentum_buffer"] = torch.where(used, before.lerp(weight.grad, 1 - kept), before)
                ahead = torch.where(used, buffer.lerp(weight.grad, 1 - kept), 0.0)
                matrix = ahead.reshape(matrix_of(weight.shape))
                rows, columns = matrix.shape
                length = max(1.0, rows / columns) ** 0.5
                weight.mul_(1 - rate * group["weight_decay"])
                weight.sub_(orthogonal(matrix).view_as(weight), alpha=rate * length)


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of the matrix U S V^T, with S near 1, by matrix products alone; zeros stay zeros."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (wide.norm() + 1e-12)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide is matrix else x.T
