"""The audit passes the private step as it is, and fails each of three bugs that are planted in it."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

import gliofed.client.round.privacy
from gliofed.client.round.privacy import Plan, patient_gradient
from gliofed.shared.accounting import noise_for, rdp_epsilon
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.mechanisms import PrivacyConfig
from gliofed.shared.tasks import Task
from gliofed.simulation.attacks.canaries import DELTA, FRAMES, audit, proven

CLAIMED, CANARIES, STEPS, RATE = 2.0, 1000, 4, 0.5


def lower_bound(run: RunConfig) -> tuple[float, float]:
    """(claimed, proven) epsilon of a few private steps."""
    sigma = noise_for(CLAIMED, DELTA, RATE, STEPS)
    run = replace(run, privacy=PrivacyConfig(mechanism="dp_sgd", clip=1.0))
    found = audit(run, Plan(sigma=sigma, rate=RATE, steps=STEPS, lr=0.8), CANARIES)
    return rdp_epsilon([(sigma, RATE, STEPS)], DELTA), proven(found.right, found.guesses, CANARIES, DELTA)


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise ten times too small."""
    original = DPOptimizer.add_noise

    def add_noise(self: DPOptimizer) -> None:
        self.noise_multiplier /= 10
        original(self)
        self.noise_multiplier *= 10

    monkeypatch.setattr(DPOptimizer, "add_noise", add_noise)


def unclipped(monkeypatch: pytest.MonkeyPatch) -> None:
    original = DPOptimizer.clip_and_accumulate

    def clip_and_accumulate(self: DPOptimizer) -> None:
        self.max_grad_norm, clip = 1e9, self.max_grad_norm
        original(self)
        self.max_grad_norm = clip

    monkeypatch.setattr(DPOptimizer, "clip_and_accumulate", clip_and_accumulate)


def by_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each frame, as hooks on a model that folds time into the batch would give."""

    def gradient(model: nn.Module, batch: Batch, task: Task, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        frames = [replace(batch, image=batch.image[:, [frame]]) for frame in range(FRAMES)]
        found = [patient_gradient(model, frame, task, dtype) for frame in frames]
        return found[0][0], [torch.cat(rows) / FRAMES for rows in zip(*(rows for _, rows in found), strict=True)]

    monkeypatch.setattr(gliofed.client.round.privacy, "patient_gradient", gradient)


@pytest.mark.slow
def test_the_private_step_keeps_its_claim_and_is_not_far_below(run_config: Callable[..., RunConfig]) -> None:
    """A bound of zero would say that the audit is blind."""
    claimed, found = lower_bound(run_config())
    assert claimed == pytest.approx(CLAIMED, rel=0.01)
    assert 0.1 < found < claimed


@pytest.mark.slow
@pytest.mark.parametrize("bug", [quiet, unclipped, by_frame], ids=lambda bug: str(bug.__name__))
def test_a_planted_bug_is_found(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    bug(monkeypatch)
    claimed, found = lower_bound(run_config())
    assert found > claimed


def test_guesses_that_a_coin_could_make_prove_nothing() -> None:
    """And all right ones no more than chance allows: without a delta, the odds of one to the power of their number."""
    assert proven(150, 300, CANARIES, DELTA) == 0
    epsilon = proven(300, 300, CANARIES, 0.0)
    assert (1 / (1 + math.exp(-epsilon))) ** 300 == pytest.approx(0.05, rel=0.01)
    assert 4 < proven(300, 300, CANARIES, DELTA) < epsilon
