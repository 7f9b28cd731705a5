"""The local loop, without any network in it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from gliofed.shared.algorithms import ALGORITHMS, FEDAVG, AlgorithmConfig
from gliofed.shared.config import TrainConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.optimizers import ADAMW, OPTIMIZERS, OptimizerConfig
from gliofed.shared.parse import ConfigError
from gliofed.shared.tasks import Task


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a round of local training was like."""

    loss: float
    """Mean over samples."""
    steps: int


def pick_device(name: str) -> torch.device:
    """Return the device of `device=auto|cpu|cuda:N`; auto takes a GPU if there is one. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"device={name}: this machine has {count} CUDA devices; use auto, cpu or a smaller number")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of autocast; auto is bf16 or fp16 on a GPU that computes in it, and fp32 on a CPU."""
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def train_one_round(
    model: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    config: TrainConfig,
    steps: int,
    device: torch.device,
    algorithm: AlgorithmConfig = FEDAVG,
    optimizer: OptimizerConfig = ADAMW,
    rate: float | None = None,
) -> TrainResult:
    """Take `steps` steps at `rate`, one a batch; the optimiser is fresh, so that a site keeps no state between rounds.

    `rate` is that of `gliofed.shared.optimizers.rate_of`; None: train.lr.
    fp16 scales the loss, since small gradients would vanish in it; a step whose gradients overflow is skipped.
    """
    model.to(device).train()
    lr = config.lr if rate is None else rate
    stepper = OPTIMIZERS[optimizer.name].make(model.parameters(), lr, config.weight_decay, optimizer)
    dtype = pick_precision(config.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    method, parameters = ALGORITHMS[algorithm.name], dict(model.named_parameters())
    start = {name: parameter.detach().clone() for name, parameter in parameters.items() if method.corrects}
    total, samples = torch.zeros((), device=device), 0
    for _, batch in zip(range(steps), batches, strict=False):
        batch = batch.to(device)
        stepper.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(*batch.inputs)
        loss = task.loss(logits, batch.target, batch.weight)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # PyTorch has no type for it
        if config.clip is not None or method.corrects:
            scaler.unscale_(stepper)
        method.correct(parameters, start, algorithm)
        if config.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        scaler.step(stepper)
        scaler.update()
        size = len(batch.image)
        total, samples = total + loss.detach() * size, samples + size  # no .item(): a GPU would wait
    return TrainResult(loss=total.item() / samples, steps=steps)
