"""The private step: DP-SGD whose unit is a patient, with the clipping, noise and sampling of Opacus."""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import tee
from statistics import fmean

import numpy as np
import torch
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import Tensor, nn

from gliofed.client.round.gpu import tuned
from gliofed.client.round.training import TrainResult, pick_precision
from gliofed.shared.accounting import Spent, noise_for
from gliofed.shared.config import RunConfig
from gliofed.shared.data.ahead import ahead
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Drawn
from gliofed.shared.data.samples import Batch
from gliofed.shared.models.dropout import seed_layers
from gliofed.shared.noise import NOISE, SAMPLING, secret_generator
from gliofed.shared.seeding import generator, seed_of
from gliofed.shared.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The private steps of one round at one site."""

    sigma: float
    """Noise multiplier: the deviation of the noise, in units of what one patient can change."""
    rate: float
    """Chance of each patient to be in a step."""
    steps: int
    """Steps with noise; one where the whole update gets it."""
    lr: float
    """SGD's learning rate, of private steps."""


def plan_round(run: RunConfig, round: int, reported: int, delta: float, also: Spent = ()) -> Plan:
    """Plan a round, counted from 1, of a site that tells of so many training patients.

    All rounds of the run, and `also`, spend privacy.epsilon at `delta`. Everything follows from what is told, since an
    update shows it: noise that followed from the exact number would give that away. Raises ValueError where `also`
    alone spends the budget.
    """
    privacy = run.privacy
    steps, rate = run.train.local_steps(reported), min(1.0, privacy.batch / reported)
    if privacy.mechanism == "local_update":
        steps, rate = 1, 1.0
    delta = delta if privacy.delta is None else min(delta, privacy.delta)
    sigma = noise_for(privacy.epsilon, delta, rate, run.rounds * steps, tuple(also))
    falls = 1 - (round - 1) / run.rounds if privacy.schedule == "linear" else 1.0
    return Plan(sigma=sigma, rate=rate, steps=steps, lr=privacy.lr * falls)


def train_privately(
    model: nn.Module,
    patients: Sequence[Patient],
    sample: Callable[[Patient, np.random.Generator], Drawn | Batch],
    task: Task,
    run: RunConfig,
    plan: Plan,
    device: torch.device,
    secret: int,
    workers: int = 0,
) -> TrainResult:
    """Take `plan.steps` private steps of SGD. The loss of the result is not covered by any epsilon.

    `sample` draws one patient's patches, as one batch, in one of so many `workers`, which draw ahead.
    One patient is one physical batch: any layer without running statistics is then right, whatever it folds into the
    batch (hooks of Opacus would clip a series by frame). A patient's patches, and dropout, have generators of their
    own, so that another patient's absence changes nothing in them. Attacks on the rounding of the noise are not met.
    """
    model.to(device).train()
    # fp16 needs a loss scale, which would follow all patients' gradients.
    dtype = pick_precision(run.train.precision, device)
    dtype = torch.float32 if dtype == torch.float16 else dtype
    parameters = list(model.parameters())
    optimizer = DPOptimizer(
        torch.optim.SGD(parameters, lr=plan.lr, momentum=run.privacy.momentum),
        noise_multiplier=plan.sigma,
        max_grad_norm=run.privacy.clip,
        expected_batch_size=run.privacy.batch,  # a constant: rate * patients would give their number away
        generator=secret_generator(secret, NOISE, device),
    )
    drawing = secret_generator(secret, SAMPLING, torch.device("cpu"))
    batches = UniformWithReplacementSampler(
        num_samples=len(patients), sample_rate=plan.rate, generator=drawing, steps=plan.steps
    )
    steps, again = tee(enumerate(batches))
    tasks = (
        partial(sample, patients[index], generator(secret, step, patients[index].name))
        for step, chosen in again
        for index in chosen
    )
    losses: list[Tensor] = []
    with tuned(device), closing(ahead(tasks, workers)) as drawn:
        for step, chosen in steps:
            for place, index in enumerate(chosen):
                batch = next(drawn).to(device)
                seed_layers(model, seed_of(secret, step, patients[index].name, "layers"), device)
                loss, rows = patient_gradient(model, batch, task, dtype)
                losses.append(loss)
                optimizer.signal_skip_step(place < len(chosen) - 1)
                _step(optimizer, parameters, rows)
            if not chosen:  # noise alone: that nobody was drawn must not show
                _step(optimizer, parameters, [parameter.new_zeros((0, *parameter.shape)) for parameter in parameters])
    finite = [loss for loss in torch.stack(losses).tolist() if math.isfinite(loss)] if losses else []
    return TrainResult(loss=fmean(finite) if finite else math.nan, steps=plan.steps)


def patient_gradient(model: nn.Module, batch: Batch, task: Task, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """One patient's loss, the mean over the patches of `batch`, and its gradients, each (1, *parameter.shape).

    A gradient that is not finite becomes zero: it would make all weights NaN through its norm.
    """
    with torch.autocast(batch.image.device.type, dtype, enabled=dtype != torch.float32):
        logits = model(*batch.inputs)
    loss = task.loss(logits, batch.target, batch.weight)
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    # One pass: a norm over all is finite only where every gradient is. What overflows it would be clipped to zero too.
    finite = nn.utils.get_total_norm(gradients).isfinite()
    rows = [torch.where(finite, gradient, gradient.new_zeros(()))[None] for gradient in gradients]
    return loss.detach(), rows


def _step(optimizer: DPOptimizer, parameters: Sequence[nn.Parameter], rows: Sequence[Tensor]) -> None:
    """Clip and add one patient's rows; the last patient of a step also adds the noise and moves the weights."""
    for parameter, row in zip(parameters, rows, strict=True):
        parameter.grad_sample = row  # type: ignore[attr-defined]  # where Opacus looks for it
    optimizer.step()
    optimizer.zero_grad()
