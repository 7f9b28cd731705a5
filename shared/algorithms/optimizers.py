"""Optimisers of a site's local steps, and their learning rate. PyTorch is imported when one is made."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from gliofed.shared.algorithms.groups import Group
from gliofed.shared.parse import PositiveFloat, Strict, key_of

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from gliofed.shared.config import RunConfig

MOST_POWER = 10
"""With it the last of a million rounds still has a rate above zero."""


@dataclass(frozen=True)
class LocalOptimizer:
    """One way to take local steps."""

    make: "Callable[[Iterable[nn.Parameter], float, float, OptimizerConfig], Optimizer]"
    """From the parameters, the learning rate, train.weight_decay and the optimiser's settings."""
    moments: tuple[Group, ...]
    """What it keeps of gradients that have been, as PyTorch calls it in its state."""
    scale_free: bool
    """Whether a step is as long as `length` and `farthest` say, however large the gradient is. Else only train.clip
    bounds a step."""
    length: Callable[[Sequence[int]], float] = lambda shape: math.sqrt(math.prod(shape))
    """About the L2 norm of a step at rate 1, for a tensor of this shape."""
    reach: Callable[[int, float], float] = lambda steps, momentum: math.sqrt(steps)
    """About the L2 norm of so many steps of length 1 together, with optimizer.momentum: they go in all directions."""
    farthest: Callable[[Sequence[int]], float] = lambda shape: 1.0
    """How far a step at rate 1 moves one value of a tensor of this shape at most."""


def adamw(
    parameters: "Iterable[nn.Parameter]", rate: float, weight_decay: float, config: "OptimizerConfig"
) -> "Optimizer":
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); its weight decay is decoupled."""
    from torch.optim import AdamW

    parameters = list(parameters)
    # One kernel for many parameters. On a CPU it would change the last bits of runs, and gain nothing.
    return AdamW(parameters, lr=rate, weight_decay=weight_decay, fused=parameters[0].is_cuda or None)


def sgd(
    parameters: "Iterable[nn.Parameter]", rate: float, weight_decay: float, config: "OptimizerConfig"
) -> "Optimizer":
    """SGD with heavy-ball momentum, as PyTorch has it; the weight decay is added to the clipped gradient."""
    from torch.optim import SGD

    return SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=weight_decay)


def muon(
    parameters: "Iterable[nn.Parameter]", rate: float, weight_decay: float, config: "OptimizerConfig"
) -> "Optimizer":
    """Muon (Jordan et al. 2024): all directions of a tensor's momentum get the same length."""
    from gliofed.shared.algorithms.muon import Muon

    return Muon(parameters, rate, weight_decay, config.momentum)


MUON_MOST = 1.21
"""Largest singular value that Muon's iterations leave: no entry of such a matrix is larger."""


def matrix_of(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns that Muon takes a tensor for: output channels by the rest; a vector has one row.

    >>> matrix_of((8, 4, 3, 3, 3)), matrix_of((8,)), matrix_of(())
    ((8, 108), (1, 8), (1, 1))
    """
    rows = shape[0] if len(shape) > 1 else 1
    return rows, math.prod(shape) // rows


def muon_length(shape: Sequence[int]) -> float:
    """L2 norm of a step of Muon at rate 1, if singular values were 1: as many of these as the shorter side has."""
    return math.sqrt(matrix_of(shape)[0])


def muon_reach(steps: int, momentum: float) -> float:
    """How far steps of length 1 go, if two that are k apart have the cosine r^k, with r the root of the momentum.

    Sum of all n^2 cosines: n (1 + r) / (1 - r) - 2 r (1 - r^n) / (1 - r)^2. That r was found on a U-Net that learns:
    with a momentum of .9, its updates of 1, 4, 16, 50 and 120 steps were .89, .76, .89, 1.14 and 1.05 times as long.

    >>> [round(muon_reach(steps, 0.9) / steps**0.5, 2) for steps in (1, 16, 120)], muon_reach(16, 0.0)
    ([1.0, 3.51, 5.66], 4.0)
    """
    r = math.sqrt(momentum)
    return math.sqrt(steps * (1 + r) / (1 - r) - 2 * r * (1 - r**steps) / (1 - r) ** 2)


def muon_farthest(shape: Sequence[int]) -> float:
    """How far Muon moves one value at most, at rate 1."""
    rows, columns = matrix_of(shape)
    return MUON_MOST * math.sqrt(max(1.0, rows / columns))


OPTIMIZERS = {
    "adamw": LocalOptimizer(adamw, (Group("exp_avg"), Group("exp_avg_sq", lowest=0.0)), scale_free=True),
    "sgd": LocalOptimizer(sgd, (Group("momentum_buffer"),), scale_free=False),
    "muon": LocalOptimizer(muon, (Group("momentum_buffer"),), True, muon_length, muon_reach, muon_farthest),
}
"""Every optimiser by the name that a configuration uses. A new one is an entry here, and a YAML."""

SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda done, power: 1.0,
    "cosine": lambda done, power: (1 + math.cos(math.pi * done)) / 2,
    "polynomial": lambda done, power: (1 - done) ** power,
}
"""Every schedule by the name that a configuration uses: the share of the full learning rate, by the share of the rounds
after the warmup that is done, 0 to 1, and optimizer.power."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Strict):
    """What takes a site's local steps."""

    name: Annotated[str, key_of(OPTIMIZERS)] = "adamw"
    """A key of OPTIMIZERS."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of sgd and muon."""
    moments: Literal["fresh", "kept", "averaged"] = "fresh"
    """At the start of a round: none; those with which the site's last round that counted ended; or the mean of all
    sites' (Mills et al. 2020, doi:10.1109/JIOT.2019.2956615, algorithm 1), which takes twice the bytes more for adamw.
    Bias is corrected as for all steps of the run so far."""
    schedule: Annotated[str, key_of(SCHEDULES)] = "constant"
    """A key of SCHEDULES: how the learning rate falls over the run; see `rate_of`."""
    power: Annotated[PositiveFloat, Field(le=MOST_POWER)] = 0.9
    """Of polynomial; that of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z)."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Rounds before the learning rate is whole; fewer than the run has."""


ADAMW = OptimizerConfig()
USUAL = OptimizerConfig(name="muon", momentum=0.9)
"""What a run has where nothing is said, but for moments that are averaged: configs/optimizer/muon.yaml."""


def rate_of(run: "RunConfig", round: int) -> float:
    """Learning rate of the local steps of a round, which counts from 1.

    With R rounds in the run, W of them for the warmup, and f of SCHEDULES:

        rate(r) = train.lr * r / (W + 1)                 for r <= W
        rate(r) = train.lr * f((r - 1 - W) / (R - W))    for r > W

    So the first round after the warmup has the whole rate, and the last round has not zero. cosine is equation 5 of
    Loshchilov and Hutter 2017 (arXiv:1608.03983), once over the run and down to 0; polynomial is the power of what is
    left.
    """
    config = run.optimizer
    if round <= config.warmup:
        return run.train.lr * round / (config.warmup + 1)
    done = min(1.0, (round - 1 - config.warmup) / (run.rounds - config.warmup))
    return run.train.lr * SCHEDULES[config.schedule](done, config.power)
