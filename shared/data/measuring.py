"""A model on whole patients."""

from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from gliofed.shared.config import DataConfig
from gliofed.shared.data.ahead import ahead
from gliofed.shared.data.dataset import Patient, Reading
from gliofed.shared.data.samples import whole
from gliofed.shared.tasks.task import Model, Task


def measure_each(
    task: Task,
    model: Model,
    patients: Sequence[Patient],
    data: DataConfig,
    reading: Reading,
    device: torch.device,
    workers: int | None = None,
) -> list[dict[str, float]]:
    """`Task.measure` of each patient, in their order; the model is in evaluation mode, on `device`.

    On a GPU two threads take turns at the model: it works for one patient while the metrics of another are computed.
    On a CPU nothing would be won.
    """
    turn = Lock()

    def alone(*inputs: Any) -> Tensor:
        with turn:  # what one forward pass holds must suffice for both
            return model(*inputs)

    @torch.no_grad()  # of each thread
    def one(patient: Patient) -> dict[str, float]:
        return task.measure(alone, whole(patient, data, reading), data, device)

    if workers is None:
        workers = 2 if device.type == "cuda" else 0
    return list(ahead((partial(one, patient) for patient in patients), workers))
