"""A lower bound of epsilon from one run with canaries: what the private step gives away, measured and not computed.

Each of many canaries is a made-up patient with a weight of its own, so that its gradient stands alone. A coin says
whether it is in the cohort. Who sees every noisy gradient guesses the coins of those that look clearest; too many
right guesses prove a larger epsilon than was claimed.
Source: Steinke, Nasr, Jagielski 2023, arXiv:2305.08846, algorithm 1 and appendix D; gradients with one entry: Nasr et
al. 2023, arXiv:2302.07956.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from client.privacy import Plan, train_privately
from shared.accounting import noise_for, rdp_epsilon
from shared.config import PrivacyConfig, RunConfig
from shared.data.dataset import Patient
from shared.data.samples import Batch

CANARIES, STEPS, RATE, FRAMES, GUESSES = 1000, 4, 0.5, 5, 300
DELTA, CONFIDENCE = 1e-5, 0.95
LOUD = 1e3
"""Norm of a canary's gradient before it is clipped."""


class Weights(nn.Module):
    """A weight for each canary; a series of frames (B, T) that name a canary, to that weight in each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(CANARIES))

    def forward(self, series: Tensor) -> Tensor:
        return self.weight[series.long()]


class Loud:
    """A task whose loss is the mean over patches and frames, so that a frame's gradient is that of the series."""

    @staticmethod
    def loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return LOUD * logits.mean()


def lower_bound(run: RunConfig, epsilon: float) -> tuple[float, float]:
    """(claimed, proven) epsilon of private steps whose noise is that of `epsilon`."""
    sigma = noise_for(epsilon, DELTA, RATE, STEPS)
    coins = np.random.default_rng(0).random(CANARIES) < 0.5
    patients = [Patient(str(canary), (), ()) for canary in np.flatnonzero(coins)]
    privacy = PrivacyConfig(mechanism="dp_sgd", clip=1.0)
    scores = _seen(replace(run, privacy=privacy), patients, Plan(sigma=sigma, rate=RATE, steps=STEPS, lr=0.8))
    order = np.argsort(scores)
    out, inside = order[: GUESSES // 2], order[-GUESSES // 2 :]
    right = int(coins[inside].sum() + (~coins[out]).sum())
    return rdp_epsilon([(sigma, RATE, STEPS)], DELTA), proven(right)


def _seen(run: RunConfig, patients: list[Patient], plan: Plan) -> Any:
    """Sum over the steps of every noisy gradient, as the optimiser gets it."""
    model, total = Weights(), torch.zeros(CANARIES)

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if optimizer.param_groups[0]["params"][0] is model.weight:
            total.add_(model.weight.grad)  # type: ignore[arg-type]  # there when a step is taken

    handle = register_optimizer_step_pre_hook(look)
    try:
        train_privately(model, patients, _series, Loud, run, plan, torch.device("cpu"), secret=1)  # type: ignore[arg-type]
    finally:
        handle.remove()
    return total.numpy()


def _series(patient: Patient, _: np.random.Generator) -> Batch:
    return Batch(torch.full((2, FRAMES), float(patient.name)), torch.zeros(2))


def proven(right: int) -> float:
    """The largest epsilon which so many right guesses refute at the confidence: the true one is above it."""
    low, high = 0.0, 20.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(right, middle) < 1 - CONFIDENCE else (low, middle)
    return low


def _chance(right: int, epsilon: float) -> float:
    """Upper bound of the chance of so many right guesses, or more, under (epsilon, DELTA)-DP."""
    rate = 1 / (1 + np.exp(-epsilon))
    below = np.cumsum(binom.pmf(right - np.arange(1, right + 1), GUESSES, rate)) / np.arange(1, right + 1)
    return float(min(1.0, binom.sf(right - 1, GUESSES, rate) + below.max(initial=0.0) * DELTA * 2 * CANARIES))
