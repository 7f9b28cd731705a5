"""What PyTorch is told while a GPU trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """Let a GPU train as fast as it can: TF32 for what is computed in fp32, and convolutions that are tuned.

    TF32 keeps 10 bits of each factor and sums in fp32; PyTorch's convolutions use it anyway. cuDNN tries its algorithms
    for each new shape and keeps the fastest. All batches of a round have one shape, so that pays; volumes of an
    evaluation differ, so the tuning ends with the training. Which algorithm wins depends on the machine and the moment:
    on a GPU results agree up to rounding, not bit for bit. On a CPU nothing changes.

    Both are settings of the process. Of sites that train side by side in it the first to end also ends them for the
    others, which are then slower and no less right.
    """
    if device.type != "cuda":
        yield
        return
    # Not matmul.fp32_precision: after that, PyTorch 2.13 refuses to compile, and to say what the setting is.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("highest")
