"""A few patients of noise, and the private step on them with what it hands to SGD."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gliofed.client.round.privacy import (
    Plan,
    train_privately,
)
from gliofed.client.round.training import TrainResult
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.samples import Batch
from gliofed.shared.models.clstm_unet3d import CLSTMUNet3D
from gliofed.shared.tasks.segmentation import Segmentation

CPU = torch.device("cpu")
SIDE, PATCHES, CLIP, BATCH = 8, 2, 0.22, 2.0
Configure = Callable[..., RunConfig]
Sample = Callable[[Patient, np.random.Generator], Batch]
Gradients = list[list[Tensor]]


def patients(count: int) -> list[Patient]:
    return [Patient(f"P{index}", (), ()) for index in range(count)]


def drawn(patient: Patient, rng: np.random.Generator) -> Batch:
    """Patches of a series of three frames, (PATCHES, 3, 1, SIDE, SIDE, SIDE); each patient is of another brightness."""
    scale = 1 + int(patient.name[1:])
    image = torch.from_numpy(rng.standard_normal((PATCHES, 3, 1, SIDE, SIDE, SIDE), np.float32))
    return Batch(scale * image, (image > scale / 2).float())


def series_model() -> nn.Module:
    torch.manual_seed(0)
    return CLSTMUNet3D(1, 1, (4, 8))


def private(
    model: nn.Module, run: RunConfig, plan: Plan, people: Sequence[Patient], sample: Sample = drawn
) -> TrainResult:
    run = replace(run, privacy=replace(run.privacy, clip=CLIP, batch=BATCH))
    return train_privately(model, people, sample, Segmentation(), run, plan, CPU, secret=5)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def record_gradients(monkeypatch: pytest.MonkeyPatch) -> Gradients:
    """The gradients that SGD was given, one list a step; here it moves nothing."""
    every: Gradients = []

    class Recorder(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            every.append([p.grad.clone() for p in self.param_groups[0]["params"]])

    monkeypatch.setattr(torch.optim, "SGD", Recorder)
    return every
