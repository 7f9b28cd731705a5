"""What hides a patient: noise of the right size, and a plan that keeps the budget."""

import math
from dataclasses import replace

import pytest
import torch
from private_patients import (
    CLIP,
    CPU,
    Configure,
    Gradients,
    drawn,
    flat,
    patients,
    private,
    record_gradients,
    series_model,
)
from torch import Tensor, nn

from gliofed.client.round import privacy
from gliofed.client.round.privacy import Plan, plan_round, train_privately
from gliofed.shared.accounting import rdp_epsilon
from gliofed.shared.mechanisms import PrivacyConfig
from gliofed.shared.tasks.segmentation import Segmentation


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Gradients:
    return record_gradients(monkeypatch)


def test_an_empty_step_is_noise_alone(run_config: Configure, received: Gradients) -> None:
    """That nobody was drawn must not show; the accountant has counted the step."""
    result = private(series_model(), run_config(), Plan(sigma=1.0, rate=1e-9, steps=3, lr=0.8), patients(2))
    assert len(received) == result.steps == 3
    assert math.isnan(result.loss)
    for gradients in received:
        assert all(gradient.isfinite().all() and gradient.count_nonzero() for gradient in gradients)


class Idle(nn.Module):
    """Weights that change nothing, so that their gradients are noise alone; notes whether autocast was on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(20_000))
        self.autocast: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.autocast.add(torch.is_autocast_enabled("cpu"))
        return x + 0 * self.weight.sum()


def test_noise_has_its_deviation_and_its_secret(run_config: Configure, received: Gradients) -> None:
    """sigma * clip / expected batch. A secret repeats its noise, another one has other noise."""
    run = replace(run_config(), privacy=PrivacyConfig(clip=CLIP, batch=2.0))
    plan = Plan(sigma=0.7, rate=0.5, steps=1, lr=0.8)
    for secret in (1, 1, 2):
        train_privately(Idle(), patients(4), drawn, Segmentation(), run, plan, CPU, secret)
    first, again, other = (flat(gradients) for gradients in received)
    assert first.std().item() == pytest.approx(0.7 * CLIP / 2, rel=0.05)
    assert abs(first.mean().item()) < 0.05 * 0.7 * CLIP / 2
    assert torch.equal(first, again)
    assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 0.05


def test_a_plan_spends_the_budget_and_no_more(run_config: Configure) -> None:
    run, also = run_config("rounds=3", "train.steps=4"), ((2.0, 1.0, 1),)
    run = replace(run, privacy=PrivacyConfig(mechanism="dp_sgd", epsilon=2.0, batch=8.0))
    for before in ((), also):
        plan = plan_round(run, 1, 40, 1 / 400, before)
        assert (plan.rate, plan.steps) == (8 / 40, 4)
        assert 0.99 * 2 <= rdp_epsilon([*before, (plan.sigma, plan.rate, 3 * 4)], 1 / 400) <= 2
    assert plan_round(run, 1, 5, 0.01).rate == 1.0  # fewer patients than a batch
    strict = replace(run, privacy=replace(run.privacy, delta=1e-6))
    assert plan_round(strict, 1, 40, 1e-3) == plan_round(run, 1, 40, 1e-6)  # the smaller delta counts
    falling = replace(run, privacy=replace(run.privacy, lr=0.9, schedule="linear"))
    assert [plan_round(falling, round, 40, 0.01).lr for round in (1, 2, 3)] == pytest.approx([0.9, 0.6, 0.3])
    with pytest.raises(ValueError, match="epsilon=2"):
        plan_round(run, 1, 40, 1 / 400, ((0.5, 1.0, 1),))


def test_fp16_is_left_out(run_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss scale would follow the gradients of all patients; a GPU without bf16 trains in fp32."""
    for dtype, on in ((torch.float16, False), (torch.bfloat16, True)):
        monkeypatch.setattr(privacy, "pick_precision", lambda name, device, dtype=dtype: dtype)
        model = Idle()
        private(model, run_config(), Plan(sigma=1.0, rate=1.0, steps=1, lr=0.8), patients(1))
        assert model.autocast == {on}
