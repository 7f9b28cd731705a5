"""How large a run is, found before anything is built for it: its model without storage, and the voxels of a step."""

from functools import lru_cache
from math import ceil, hypot, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gliofed.shared.algorithms import ALGORITHMS, kept_of, sent_of
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.algorithms.groups import joined
from gliofed.shared.codec import travelling
from gliofed.shared.config import RunConfig
from gliofed.shared.tasks import TASKS, model_of, reading_of

MOST_PARAMETERS = 2**29
"""As fp32 2 GiB, which is what a message may have."""
MOST_VOXELS = 2**28
"""Of a step; a batch of 32 patches of 128^3 voxels has a quarter."""


def outline(run: RunConfig) -> dict[str, Tensor]:
    """Give the tensors that travel, by name, on PyTorch's meta device: names, shapes and types without storage.

    Raises ValueError for a run that is larger than any may be, or whose method keeps nothing or all of its model at
    the sites, and what `model_of` raises.
    """
    if (voxels := step_voxels(run)) > MOST_VOXELS:
        raise ValueError(f"{step_sentence(voxels)}; no run may have more than {MOST_VOXELS}")
    if HOME in kept_of(run):
        _check_home(run, _empty_model(run))
    tensors = travelling(_empty_model(run))
    if (parameters := count(tensors)) > MOST_PARAMETERS:
        raise ValueError(f"{model_sentence(run, parameters)}; no run may have more than {MOST_PARAMETERS}")
    return tensors


def _check_home(run: RunConfig, model: nn.Module) -> None:
    at_home = ALGORITHMS[run.algorithm.name].at_home(model)
    what = f"algorithm={run.algorithm.name} with model.name={run.model.name}"
    if not at_home:
        raise ValueError(f"{what}: nothing of the model is to stay at the sites; use algorithm=fedavg")
    if dict(model.named_parameters()).keys() <= at_home:
        raise ValueError(f"{what}: all of the model is to stay at the sites, so nothing is averaged; use another model")


def outline_of_request(run: RunConfig, training: bool) -> dict[str, Tensor]:
    """Give the tensors that a request has, as `outline` does: without what stays at home, and to train with the groups
    that are sent beside the weights.
    """
    model, at_home = _empty_model(run), at_home_of(run)
    trained = {name: each for name, each in model.named_parameters() if name not in at_home}
    groups = {group.name: trained for group in sent_of(run)} if training else {}
    return joined(travelling(model, at_home), groups)


def at_home_of(run: RunConfig) -> frozenset[str]:
    """Names of the model's tensors that stay at the sites, as the run's method has it."""
    return ALGORITHMS[run.algorithm.name].at_home(_empty_model(run))


@lru_cache(maxsize=8)
def _empty_model(run: RunConfig) -> nn.Module:
    with torch.device("meta"), _Unfilled():
        return model_of(run)


class _Unfilled(TorchFunctionMode):
    """Draws no normal numbers: without storage there are none, but PyTorch would load its compiler, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


def count(tensors: dict[str, Tensor]) -> int:
    """Count the numbers in a model."""
    return sum(tensor.numel() for tensor in tensors.values())


def step_voxels(run: RunConfig) -> int:
    """Count the voxels that a training step computes on, or that turned patches are cut from, where those are more.

    Samples of the batch, or of one patient with dp_sgd, times visits of a series, refinements of lstm_unet, as if each
    were at full resolution, and voxels of a patch as the model pads it. Times modalities, regions or channels that is
    what memory must hold.
    Raises what `model_of` raises.
    """
    model = _empty_model(run)
    step, refinements = getattr(model, "step", 1), getattr(model, "iterations", 1)  # each model's own, where it has one
    samples = run.privacy.patches if run.privacy.mechanism == "dp_sgd" else run.train.batch
    visits = run.data.window if reading_of(run) == "series" else 1
    return visits * samples * max(refinements * padded_voxels(run.data.patch, step), _block(run))


def padded_voxels(patch: tuple[int, ...], step: int) -> int:
    """Voxels of a patch (D, H, W) as a model pads it, whose levels halve it: each edge to a multiple of `step`.

    >>> padded_voxels((96, 96, 90), step=8)
    884736
    """
    return prod(ceil(edge / step) * step for edge in patch)


def _block(run: RunConfig) -> int:
    """Voxels of the largest block that `gliofed.shared.data.augment` may cut to turn and scale a patch."""
    augment, patch, spacing = run.train.augment, run.data.patch, run.data.spacing
    if TASKS[run.task].label or not (augment.rotation or augment.scaling):
        return prod(patch)
    edges = spacing if isinstance(spacing, tuple) else (1.0,) * 3
    diagonal = hypot(*(edge * voxels for edge, voxels in zip(edges, patch, strict=True))) * (1 + augment.scaling)
    return prod(ceil(diagonal / edge) + 3 for edge in edges)  # 3: a block has the patch's centre, and whole voxels


def step_sentence(voxels: int) -> str:
    """Say how large a step is, and what makes it so."""
    made_of = "samples x visits x refinements x padded data.patch, or the blocks of turned patches"
    return f"a step of {voxels} voxels ({made_of})"


def model_sentence(run: RunConfig, parameters: int) -> str:
    """Say how large a model is."""
    return f"model.name={run.model.name} with model.preset={run.model.preset}: {parameters} parameters"
