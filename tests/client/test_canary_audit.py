"""The audit passes the private step as it is, and fails each of three bugs that are planted in it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from canary_audit import CANARIES, FRAMES, GUESSES, lower_bound, proven
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

import client.privacy
from client.privacy import patient_gradient
from shared.config import RunConfig
from shared.data.samples import Batch
from shared.tasks import Task

CLAIMED = 2.0

pytestmark = pytest.mark.slow


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

    monkeypatch.setattr(client.privacy, "patient_gradient", gradient)


def test_the_private_step_keeps_its_claim_and_is_not_far_below(run_config: Callable[..., RunConfig]) -> None:
    """A bound of zero would say that the audit is blind."""
    claimed, found = lower_bound(run_config(), CLAIMED)
    assert claimed == pytest.approx(CLAIMED, rel=0.01)
    assert 0.1 < found < claimed


@pytest.mark.parametrize("bug", [quiet, unclipped, by_frame], ids=lambda bug: str(bug.__name__))
def test_a_planted_bug_is_found(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    bug(monkeypatch)
    claimed, found = lower_bound(run_config(), CLAIMED)
    assert found > claimed


def test_guesses_that_a_coin_could_make_prove_nothing() -> None:
    assert proven(GUESSES // 2) == 0
    assert proven(GUESSES) > 4  # as many right ones as there can be
    assert GUESSES <= CANARIES
