"""The private step against slow, separately written oracles: gradients, clipping, sampling and noise by patient."""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from private_patients import (
    BATCH,
    CLIP,
    CPU,
    PATCHES,
    SIDE,
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
from torch.testing import assert_close

from gliofed.client.round.privacy import Plan, patient_gradient
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.samples import Batch
from gliofed.shared.models import MODELS
from gliofed.shared.noise import NOISE, SAMPLING, secret_generator
from gliofed.shared.seeding import generator
from gliofed.shared.tasks import TASKS, Task
from gliofed.shared.tasks.segmentation import Segmentation

SUBJECTS = [
    ("unet", {}),
    ("unet", {"presence": True}),
    ("lstm_unet", {}),
    ("clstm_unet3d", {}),
    ("clstm_unet3d", {"presence": True}),
    ("clstm_unet3d", {"bidirectional": True}),
    ("clstm_unet3d", {"difference": True}),
    ("cnn_lstm", {"encoder": "cnn1"}),
    ("cnn_lstm", {"encoder": "cnn2"}),
    ("cnn_lstm", {"encoder": "cnn3"}),
    ("monai_dynunet", {}),
    ("monai_segresnet", {}),
]


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Gradients:
    return record_gradients(monkeypatch)


def slow_loss(logits: Tensor, target: Tensor, grading: bool) -> Tensor:
    """One sample's loss by its formula, without a batch's axis: cross-entropy, and 1 - soft Dice but for grading."""
    p = 1 / (1 + torch.exp(-logits))
    series = target.dim() == 5  # (T, R, D, H, W)
    target = target.expand_as(p)  # refinement iterations all have the same target
    cross_entropy = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    if grading:
        return cross_entropy
    space = (-3, -2, -1)
    dice = (2 * (p * target).sum(space) + 1) / ((p * p).sum(space) + target.sum(space) + 1)
    loss = 0.3 * cross_entropy + (1 - dice).mean()
    if not series or len(target) < 2:
        return loss
    there = (target[1:] != target[:-1]).double()  # where the series changed
    p, target = p[1:], target[1:]
    dice = (2 * (p * target * there).sum(space) + 1) / ((p * p * there).sum(space) + (target * there).sum(space) + 1)
    return loss + 0.5 * (1 - dice).mean()


def slow_gradient(model: nn.Module, batch: Batch, grading: bool = False) -> Tensor:
    """The mean over patches, one at a time, in double precision, flat."""
    model = deepcopy(model).double().train()
    for row, target in enumerate(batch.target.double()):
        present = () if batch.present is None else (batch.present[row : row + 1],)
        loss = slow_loss(model(batch.image[row : row + 1].double(), *present)[0], target, grading)
        weight = 1.0 if batch.weight is None else batch.weight[row].item()
        (weight * loss / len(batch.image)).backward()
    return flat([torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])


def clipped(gradient: Tensor) -> Tensor:
    return gradient * min(1.0, CLIP / gradient.norm().item())


def random_batch(name: str, presence: bool = False) -> tuple[Task, Batch]:
    """Two patches of two modalities, with the parts that samples of model `name` have; with `presence` one is missing
    in the second."""
    rng = torch.Generator().manual_seed(1)
    frames = (3,) if MODELS[name].series else ()
    image = torch.randn(PATCHES, *frames, 2, SIDE, SIDE, SIDE, generator=rng)
    if MODELS[name].task == "grading":
        present = torch.tensor([[True, True], [False, True]])
        return TASKS["grading"], Batch(image, torch.tensor([[1.0], [0.0]]), present, torch.tensor([0.5, 2.0]))
    target = (image[..., :1, :, :, :] > 0.5).float()
    if not presence:
        return TASKS["segmentation"], Batch(image, target)
    there = torch.ones(image.shape[:-3], dtype=torch.bool)
    there[1, ..., 1] = False
    return TASKS["segmentation"], Batch(image, target, there)


def test_the_oracle_sees_every_model() -> None:
    assert {name for name, _ in SUBJECTS} == set(MODELS)


@pytest.mark.parametrize(("name", "options"), SUBJECTS)
def test_a_patients_gradient_is_that_of_a_loop_over_patches(name: str, options: dict[str, object]) -> None:
    """Folded frames, shared weights and layers in place are where hooks go wrong."""
    torch.manual_seed(0)
    model = MODELS[name](2, 1, (8, 16, 16), **options).train()
    task, batch = random_batch(name, bool(options.get("presence")))
    _, rows = patient_gradient(model, batch, task, torch.float32)
    assert all(row.shape == (1, *p.shape) for row, p in zip(rows, model.parameters(), strict=True))
    expected = slow_gradient(model, batch, grading=task is TASKS["grading"])
    assert expected.norm() > 0.01  # else there was nothing to compare
    assert (flat(rows) - expected).abs().max() <= 1e-5 * max(1.0, expected.norm().item())


def test_clips_by_patient_not_by_frame(run_config: Configure, received: Gradients) -> None:
    """A folded model has patches x frames rows; the unit of privacy is the patient."""
    model, people = series_model(), patients(3)
    private(model, run_config(), Plan(sigma=0.0, rate=1.0, steps=1, lr=0.8), people)
    each = [slow_gradient(model, drawn(patient, generator(5, 0, patient.name))) for patient in people]
    assert any(gradient.norm() > CLIP for gradient in each)
    assert_close(
        flat(received[0]) * BATCH, torch.stack([clipped(gradient) for gradient in each]).sum(0), rtol=0, atol=1e-5
    )


def test_one_patient_moves_the_sum_by_the_clip_at_most(run_config: Configure, received: Gradients) -> None:
    """The sensitivity that the noise is made for. A clip that binds is reached, so that it is no looser than said."""
    people, plan, model = patients(4), Plan(sigma=0.0, rate=1.0, steps=1, lr=0.8), series_model()
    for away in range(-1, 4):
        there = [patient for index, patient in enumerate(people) if index != away]
        private(model, run_config(), plan, there)
    sums = [flat(gradients) * BATCH for gradients in received]
    moved = [(sums[0] - without).norm().item() for without in sums[1:]]
    assert all(distance <= CLIP * (1 + 1e-6) for distance in moved)
    norms = [slow_gradient(model, drawn(patient, generator(5, 0, patient.name))).norm() for patient in people]
    binding = [distance for distance, norm in zip(moved, norms, strict=True) if norm > CLIP]
    assert binding
    assert binding == pytest.approx([CLIP] * len(binding), rel=1e-4)


@pytest.mark.parametrize(("name", "options"), [("clstm_unet3d", {"dropout": 0.5}), ("lstm_unet", {"iterations": 9})])
def test_what_a_model_draws_of_a_patient_does_not_depend_on_who_else_is_there(
    run_config: Configure, received: Gradients, name: str, options: dict[str, Any]
) -> None:
    """Else one patient's absence would change the gradients of all after it, by more than the clip."""

    def sample(patient: Patient, rng: np.random.Generator) -> Batch:
        batch = drawn(patient, rng)
        frame = slice(None) if MODELS[name].series else 0
        return replace(batch, image=batch.image[:, frame], target=batch.target[:, frame])

    people, plan = patients(4), Plan(sigma=0.0, rate=1.0, steps=1, lr=0.8)
    torch.manual_seed(0)
    model = MODELS[name](1, 1, (4, 8), **options)
    for there in (people, people[1:], people):
        private(model, run_config(), plan, there, sample)
    all_of_them, without, again = (flat(gradients) * BATCH for gradients in received)
    assert 0 < (all_of_them - without).norm().item() <= CLIP * (1 + 1e-6)
    assert torch.equal(all_of_them, again)


def test_noisy_poisson_steps_equal_a_plain_loop(run_config: Configure) -> None:
    """The same masks and noise, drawn from generators of the same seeds, without Opacus."""
    people, plan, run = patients(5), Plan(sigma=0.8, rate=0.4, steps=6, lr=0.3), run_config()
    run = replace(run, privacy=replace(run.privacy, momentum=0.5))
    ours, model = series_model(), series_model()
    private(ours, run, plan, people)
    noise, masks = (secret_generator(5, stream, CPU) for stream in (NOISE, SAMPLING))
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.3, momentum=0.5)
    sizes = set()
    for step in range(plan.steps):
        mask = torch.rand(len(people), generator=masks) < plan.rate
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for index in mask.nonzero().flatten().tolist():
            batch = drawn(people[index], generator(5, step, people[index].name))
            gradients = torch.autograd.grad(Segmentation().loss(model(batch.image), batch.target), parameters)
            factor = min(1.0, CLIP / flat(gradients).norm().item())
            sums = [total + factor * gradient for total, gradient in zip(sums, gradients, strict=True)]
        for parameter, total in zip(parameters, sums, strict=True):
            noisy = total + torch.normal(0.0, plan.sigma * CLIP, parameter.shape, generator=noise)
            parameter.grad = noisy / BATCH
        optimizer.step()
        sizes.add(int(mask.sum()))
    assert len(sizes) > 2  # batches differ in size, and are divided by the same number
    assert (flat(list(ours.parameters())) - flat(parameters)).abs().max() <= 1e-6


def test_a_patient_of_nan_gives_nothing_and_the_others_count(run_config: Configure, received: Gradients) -> None:
    def broken(patient: Patient, rng: np.random.Generator) -> Batch:
        batch = drawn(patient, rng)
        return replace(batch, image=batch.image * math.nan) if patient.name == "P1" else batch

    plan = Plan(sigma=0.0, rate=1.0, steps=1, lr=0.8)
    private(series_model(), run_config(), plan, patients(3), broken)
    private(series_model(), run_config(), plan, [patients(3)[0], patients(3)[2]])
    assert_close(flat(received[0]), flat(received[1]))


def test_patches_do_not_depend_on_who_else_is_there(run_config: Configure, received: Gradients) -> None:
    """Else one patient's absence would change what the others give, by more than a clip."""

    def draws(people: Sequence[Patient]) -> dict[str, list[float]]:
        seen: dict[str, list[float]] = {}

        def sample(patient: Patient, rng: np.random.Generator) -> Batch:
            seen.setdefault(patient.name, []).append(rng.random())
            return drawn(patient, rng)

        private(series_model(), run_config(), Plan(sigma=0.0, rate=1.0, steps=2, lr=0.8), people, sample)
        return seen

    every, alone = draws(patients(3)), draws(patients(3)[2:])
    assert every["P2"] == alone["P2"]
    assert len({draw for several in every.values() for draw in several}) == 6  # each step and patient has its own
