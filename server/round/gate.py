"""What an update must be to count."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gliofed.server.round.spool import Spooled
from gliofed.shared.codec import CodecError
from gliofed.shared.config import RunConfig, TrainConfig
from gliofed.shared.wording import quantity


@dataclass(frozen=True)
class Measures:
    """How large one update is."""

    norm: float
    """L2 norm over the trainable parameters."""
    peak: float
    """Largest absolute value among them."""
    buffers: dict[str, float]
    """L2 norm of each other tensor."""


REASON = 200
"""Longest reason, in characters: parts of it come from the site."""


class _RefusedError(Exception):
    """An update that does not count; the text is the reason."""


def judge(
    replies: Iterable[Spooled], model: Mapping[str, Tensor], parameters: Collection[str], config: RunConfig
) -> tuple[dict[str, str], dict[str, Measures]]:
    """Judge each update alone; `model` gives names and shapes, `parameters` names those that are trained.

    Returns, by site, why an update is refused, and the measures of the others: how large one may be is for
    `gliofed.server.round.clip`.
    """
    refused: dict[str, str] = {}
    measures: dict[str, Measures] = {}
    for reply in replies:
        try:
            measures[reply.site] = _measure(reply, model, parameters)
            _check_numbers(reply, config.train)
        except (_RefusedError, CodecError) as error:
            refused[reply.site] = str(error)[:REASON]
        except Exception as error:  # bytes from another house: whatever they do to a reader, the others go on
            refused[reply.site] = f"cannot be read: {type(error).__name__}"
    return refused, {site: found for site, found in measures.items() if site not in refused}


def _measure(reply: Spooled, model: Mapping[str, Tensor], parameters: Collection[str]) -> Measures:
    """Measure an update whose tensors must be finite, and the model's in name and shape."""
    update = reply.update()
    if odd := sorted(model.keys() ^ set(update.names)):
        raise _RefusedError(f"wrong names: {quantity(len(odd), 'tensor')} on one side only")
    total, peak, buffers = 0.0, 0.0, {}
    for name, mine in model.items():
        tensor = update.tensor(name)
        if tensor.shape != mine.shape:
            raise _RefusedError(f"wrong shape: {name} is {tuple(tensor.shape)}, not {tuple(mine.shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise _RefusedError(f"not finite: {name} has NaN or infinity")
        squares = tensor.double().square().sum().item()
        if name not in parameters:
            buffers[name] = math.sqrt(squares)
        elif tensor.numel():
            total, peak = total + squares, max(peak, tensor.abs().max().item())
    return Measures(math.sqrt(total), peak, buffers)


def _check_numbers(reply: Spooled, train: TrainConfig) -> None:
    """Patients weigh in the mean, where more than agreed are cut; steps divide the norm: they may not be made up."""
    if reply.weight <= 0:
        raise _RefusedError(f"{reply.weight} patients")
    if not 0 < reply.steps <= train.local_steps(reply.ceiling):
        most = train.local_steps(reply.ceiling)
        agreed = quantity(reply.ceiling, "agreed patient")
        raise _RefusedError(f"{quantity(reply.steps, 'local step')}, not 1 to {most}, for {agreed} at most")
