"""The local loop, without any network in it."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from gliofed.client.round.gpu import tuned
from gliofed.shared.algorithms import ALGORITHMS, FEDAVG
from gliofed.shared.algorithms.groups import Groups, Local
from gliofed.shared.algorithms.moments import load_moments, read_moments
from gliofed.shared.algorithms.optimizers import ADAMW, OPTIMIZERS
from gliofed.shared.config import TrainConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import cores
from gliofed.shared.tasks import Task

GPU_WORKERS = 4
"""Threads that draw for a GPU, where the site says nothing: a turned patch of 96^3 takes each some 20 ms."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a round of local training was like."""

    loss: float
    """Mean over samples."""
    steps: int
    returned: Groups = field(default_factory=dict)
    """What goes beside the update."""
    kept: Groups = field(default_factory=dict)
    """What the site keeps until its next round."""


def pick_device(name: str) -> torch.device:
    """Return the device of `device=auto|cpu|cuda:N`; auto takes a GPU if there is one. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"device={name}: this machine has {count} CUDA devices; use auto, cpu or a smaller number")
    return device


def pick_workers(number: int | None, device: torch.device) -> int:
    """Threads that draw samples ahead; None: a few for a GPU, none on a CPU, whose cores had better train."""
    if number is None:
        return min(GPU_WORKERS, cores()) if device.type == "cuda" else 0
    return number


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of autocast; auto is bf16 or fp16 on a GPU that computes in it.

    A CPU computes in fp32 whatever is asked: of maps of 2 x 2 x 2 voxels, PyTorch 2.13 with oneDNN 3.12 makes gradients
    from memory that nothing was written to, in bf16 on CPUs that have it (avx512_bf16).
    """
    if device.type != "cuda":
        return torch.float32
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def train_one_round(
    model: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    config: TrainConfig,
    steps: int,
    device: torch.device,
    local: Local | None = None,
) -> TrainResult:
    """Take `steps` steps, one a batch, as the method of `local` has them, or as FedAvg at train.lr.

    fp16 scales the loss, since small gradients would vanish in it; a step whose gradients overflow is skipped. To
    know that, the loop waits for the GPU after each step; without fp16 it waits for the loss at the end alone.
    """
    model.to(device).train()
    dtype = pick_precision(config.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    local = local or Local(config=FEDAVG, optimizer=ADAMW, steps=steps, rate=config.lr)
    method, parameters = ALGORITHMS[local.config.name], dict(model.named_parameters())
    kind = OPTIMIZERS[local.optimizer.name]
    stepper = kind.make(parameters.values(), local.rate, config.weight_decay, local.optimizer)
    load_moments(stepper, parameters, local)
    if method.corrects:
        local = replace(local, start={name: each.detach().clone() for name, each in parameters.items()})
    total, samples, skipped = torch.zeros((), device=device), 0, 0
    with tuned(device):
        for _, batch in zip(range(steps), batches, strict=False):
            batch = batch.to(device)
            stepper.zero_grad()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                logits = model(*batch.inputs)
            loss = task.loss(logits, batch.target, batch.weight)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # PyTorch has no type for it
            if config.clip is not None or method.corrects:
                scaler.unscale_(stepper)
            method.correct(parameters, local)
            if config.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            scaler.step(stepper)
            before = scaler.get_scale() if dtype == torch.float16 else 0.0
            scaler.update()
            skipped += dtype == torch.float16 and scaler.get_scale() < before
            size = len(batch.image)
            total, samples = total + loss.detach() * size, samples + size  # no .item(): a GPU would wait
    returned, kept = method.finish(parameters, replace(local, steps=max(1, steps - skipped)))
    mean, own = read_moments(stepper, parameters, local)
    return TrainResult(loss=total.item() / samples, steps=steps, returned=returned | mean, kept=kept | own)
