"""Training steps on a GPU: whether they are right, and how fast each model's is."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gliofed.client.round.training import pick_precision, train_one_round
from gliofed.shared.algorithms import FEDAVG
from gliofed.shared.algorithms.groups import Local
from gliofed.shared.algorithms.optimizers import USUAL
from gliofed.shared.data.samples import Batch
from gliofed.shared.models import MODELS
from gliofed.shared.tasks import TASKS, Task
from tests.benchmarks.cache import usual_run
from tests.benchmarks.measure import Figures, take_turns
from tests.benchmarks.memory import step_bytes
from tests.benchmarks.models import count_flops
from tests.benchmarks.subjects import Sizes, Subject, of_preset

Cells = tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    preset: str
    volume: int
    """Voxels a side of a patch; `series` of a series' frame."""
    series: int
    batch: int
    steps: int
    """Of one measurement."""
    repeats: int
    resolution: float
    """Of the phantoms, mm."""

    @property
    def sizes(self) -> Sizes:
        """Of a step's samples."""
        return Sizes(self.volume, self.series, self.batch)


FULL = Scale(preset="base", volume=128, series=96, batch=2, steps=8, repeats=3, resolution=1.0)
TINY = Scale(preset="demo", volume=16, series=16, batch=2, steps=2, repeats=1, resolution=8.0)
"""To see that everything runs."""
BOUNDS = {"fp32": 5e-3, "TF32": 5e-2, "bf16": 2e-1}
"""Largest relative error of a gradient: of all its numbers, L2. fp32 sums in another order, TF32 keeps 10 bits of a
factor and bf16 7, and each ReLU near 0 may fall to the other side."""
SUBJECTS = ("unet", "lstm_unet", "clstm_unet3d", "cnn_lstm cnn3", "monai dynunet", "monai segresnet")
PEAKS = {
    "H200": {"bf16": 989, "fp32": 495},
    "H100 PCIe": {"bf16": 756, "fp32": 378},
    "H100 NVL": {"bf16": 835, "fp32": 418},
    "H100": {"bf16": 989, "fp32": 495},
    "A100": {"bf16": 312, "fp32": 156},
    "L40S": {"bf16": 362, "fp32": 183},
    "A10": {"bf16": 125, "fp32": 62.5},
    "RTX 4090": {"bf16": 165, "fp32": 83},
}
"""TFLOP/s of tensor cores by a part of the device's name, the first that fits; dense, fp32 as TF32, sums in fp32.
Source: NVIDIA's data sheets."""


def correctness(scale: Scale, device: torch.device) -> Iterator[Cells]:
    """A gradient of each model beside the CPU's in double precision, with the bound that it must not pass."""
    sizes = Sizes(min(scale.volume, 32), min(scale.series, 16), scale.batch)
    for name in MODELS:
        subject = subject_of(name, "demo", sizes)
        torch.manual_seed(0)
        model = subject.build()
        image, target = torch.randn(subject.image), (torch.rand(subject.target) < 0.1).float()
        true = _gradient(copy.deepcopy(model).double(), subject, image.double(), target)
        for precision, bound in BOUNDS.items():
            flags(tf32=precision == "TF32")
            there = copy.deepcopy(model).to(device)
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            found = _gradient(there, subject, image.to(device), target.to(device), dtype)
            error = ((found - true).norm() / true.norm()).item()
            flags(tf32=True)
            yield name, precision, f"{error:.1e}", f"{bound:g}", "yes" if error < bound else "**no**"


def subject_of(name: str, preset: str, sizes: Sizes) -> Subject:
    """By its name in MODELS."""
    wanted = name.replace("monai_", "monai ")
    return next(subject for subject in of_preset(preset, sizes) if subject.name.startswith(wanted))


def _gradient(
    model: nn.Module, subject: Subject, image: Tensor, target: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """All numbers of it, on the CPU, in double precision. The loss is in fp32 in any case, as the product has it."""
    with torch.autocast(image.device.type, dtype, enabled=dtype == torch.bfloat16):
        logits = model.train()(image)
    subject.loss(logits, target).backward()
    return torch.cat([p.grad.detach().cpu().double().flatten() for p in model.parameters() if p.grad is not None])


def flags(*, tf32: bool, tuning: bool = False) -> None:
    """Settings of the process; convolutions have TF32 by default."""
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = tuning


def every_step(scale: Scale, device: torch.device) -> Iterator[Cells]:
    """The product's own steps of each model, in the precision that it takes by itself, and share of the peak."""
    run = usual_run()
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(pick_precision("auto", device), "fp32")
    for subject in of_preset(scale.preset, scale.sizes):
        if subject.name not in SUBJECTS:
            continue
        model, batch, task = subject.build().to(device), batch_of(subject, device), task_of(subject)
        local = Local(config=FEDAVG, optimizer=USUAL, steps=scale.steps, rate=1e-3)
        work = partial(train_one_round, model, [batch] * scale.steps, task, run.train, scale.steps, device, local)
        figures = take_turns({"": work}, scale.repeats, device)[""]
        yield subject.name, precision, *cells(figures, subject, scale.steps, device, precision)
        del model, batch, work


def batch_of(subject: Subject, device: torch.device) -> Batch:
    image = torch.randn(subject.image, device=device)
    return Batch(image, (torch.rand(subject.target, device=device) < 0.1).float())


def task_of(subject: Subject) -> Task:
    return TASKS["grading" if subject.name.startswith("cnn_lstm") else "segmentation"]


def cells(figures: Figures, subject: Subject, steps: int, device: torch.device, precision: str) -> Cells:
    """Milliseconds a step, GB, GB worked out on shapes, TFLOP/s, and their share of the peak."""
    if figures.time is None:
        return (figures.failed or "-", *["-"] * 4)
    seconds = figures.time / steps
    rate, peak = count_flops(subject) / seconds / 1e3, peak_of(device, precision)
    share = "not known" if peak is None else f"{rate / peak:.0%}"
    # What PyTorch's allocator calls the step's: above what was held before, which is weights.
    memory = "-" if figures.memory is None else f"{figures.memory / 2**10:.2f}"
    kept = "fp32" if precision == "fp32" else "bf16"  # fp16 takes as much
    worked_out = f"{step_bytes(subject, kept) / 2**30:.2f}"
    return f"{seconds * 1e3:.1f}", memory, worked_out, f"{rate:.2f}", share


def peak_of(device: torch.device, precision: str) -> float | None:
    """TFLOP/s, or None where the device or precision is in no data sheet above."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    found = next((peaks for part, peaks in PEAKS.items() if part in name), {})
    return found.get(precision)
