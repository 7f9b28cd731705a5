"""What a training step holds in memory, worked out on shapes alone, for docs/models.md."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gliofed.shared.config import PRESETS
from tests.benchmarks.pages import write_between
from tests.benchmarks.subjects import Sizes, Subject, of_preset

EDGES = (64, 96, 128)
"""Voxels of a patch, each way."""
PATCHES = 2
"""Of a step."""
NAMES = ("unet", "lstm_unet", "clstm_unet3d", "cnn_lstm cnn3")
HELD = 12
"""Bytes of a weight, and of AdamW's two moments for it, fp32."""
PAGE = Path("docs/models.md")


class CudaAutocast(TorchFunctionMode):
    """Casts as PyTorch's autocast does on a GPU, for the functions that our models call; device meta has no autocast.

    Convolutions and linear layers compute in bf16, norms and interpolation in fp32; all others take what they get.
    Source: https://docs.pytorch.org/docs/stable/amp.html, "CUDA Ops that can autocast".
    """

    LOWER = (torch.conv3d, F.linear)
    FP32 = (F.group_norm, F.layer_norm, F.interpolate)

    def __init__(self) -> None:
        super().__init__()
        self.cast: dict[int, tuple[Tensor, Tensor]] = {}
        """Weights are cast once a pass."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.LOWER:
            args = tuple(self._lower(each) if isinstance(each, Tensor) else each for each in args)
        elif func in self.FP32:
            args = tuple(each.float() if isinstance(each, Tensor) else each for each in args)
        return func(*args, **(kwargs or {}))

    def _lower(self, x: Tensor) -> Tensor:
        if not isinstance(x, nn.Parameter):
            return x.bfloat16()
        if id(x) not in self.cast:
            self.cast[id(x)] = (x, x.bfloat16())
        return self.cast[id(x)][1]


PRECISIONS: dict[str, Callable[[], TorchFunctionMode | None]] = {
    "fp32": lambda: None,
    "bf16": CudaAutocast,
}


class Peak(TorchDispatchMode):
    """Adds up the storages that are there at once, of all tensors that are made within it, as `most` bytes.

    An operation's own workspace is not in it, so neither is what cuDNN needs to convolve.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and (storage := each.untyped_storage())._cdata not in self._known | given:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


def pass_bytes(
    model: nn.Module, image: Tensor, loss: Callable[[Tensor], Tensor], autocast: TorchFunctionMode | None = None
) -> int:
    """Bytes that a pass forward and back needs at most at once, with the gradients, without weights and batch.

    All are on device meta, so nothing is computed.
    """
    with Peak() as peak:
        with autocast or nullcontext():
            logits = model(image)
        loss(logits).backward()
    return peak.most


def step_bytes(subject: Subject, precision: str) -> int:
    """Bytes of a step: a pass, the batch, and HELD a weight."""
    with torch.device("meta"):
        model = subject.build().train()
        image, target = torch.empty(subject.image), torch.empty(subject.target)
    held = HELD * sum(parameter.numel() for parameter in model.parameters())
    batch = image.nbytes + target.nbytes
    return held + batch + pass_bytes(model, image, lambda logits: subject.loss(logits, target), PRECISIONS[precision]())


def measure() -> dict[str, dict[str, float]]:
    """GB of a step, by model and preset, then by precision and patch; also written into docs/models.md."""
    figures: dict[str, dict[str, float]] = {}
    for preset in PRESETS:
        for edge in EDGES:
            for subject in of_preset(preset, Sizes(edge, edge, PATCHES)):
                if subject.name in NAMES:
                    row = figures.setdefault(f"{subject.name} {preset}", {})
                    for precision in PRECISIONS:
                        row[f"{precision} {edge}"] = step_bytes(subject, precision) / 2**30
    write_between(PAGE, "memory", table(figures))
    return figures


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """A line a model and preset; a column a patch and precision."""
    columns = [f"{precision} {edge}" for edge in EDGES for precision in ("bf16", "fp32")]
    lines = ["| GB |" + "".join(f" {column}^3 |" for column in columns), "|---|" + "---|" * len(columns)]
    for name in NAMES:
        for preset in PRESETS:
            row = figures[f"{name} {preset}"]
            lines.append(f"| {name} {preset} |" + "".join(f" {row[column]:.2g} |" for column in columns))
    return "\n".join(lines)
