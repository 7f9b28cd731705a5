"""What an update must be to count."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gliofed.server.round.spool import Spooled
from gliofed.shared.algorithms import ALGORITHMS, returned_of
from gliofed.shared.algorithms.groups import group_of
from gliofed.shared.codec import CodecError
from gliofed.shared.config import RunConfig
from gliofed.shared.wording import quantity


@dataclass(frozen=True)
class Measures:
    """How large one update is."""

    norm: float
    """L2 norm over the trainable parameters."""
    peaks: dict[str, float]
    """Largest absolute value of each of them, by name."""
    others: dict[str, float]
    """L2 norm of each buffer, and how far each group beside the update is from what was sent, by its name."""


NOT_FINITE = "not finite"
REASON = 200
"""Longest reason, in characters: parts of it come from the site."""


class _RefusedError(Exception):
    """An update that does not count; the text is the reason."""


def judge(
    replies: Iterable[Spooled], like: Mapping[str, Tensor], parameters: Collection[str], config: RunConfig
) -> tuple[dict[str, str], dict[str, Measures]]:
    """Judge each update alone, with the groups beside it; `like` gives names and shapes of all that comes, with the
    values of a group that was sent, or zeros; `parameters` names those that are trained.

    Returns, by site, why an update is refused, and the measures of the others: how large one may be is for
    `gliofed.server.round.clip`.
    """
    refused: dict[str, str] = {}
    lowest = {group.name: group.lowest for group in returned_of(config) if group.lowest is not None}
    measures: dict[str, Measures] = {}
    for reply in replies:
        try:
            measures[reply.site] = _measure(reply, like, parameters, lowest)
            _check_numbers(reply, config)
        except (_RefusedError, CodecError) as error:
            refused[reply.site] = str(error)[:REASON]
        except Exception as error:  # bytes from another house: whatever they do to a reader, the others go on
            refused[reply.site] = f"cannot be read: {type(error).__name__}"
    return refused, {site: found for site, found in measures.items() if site not in refused}


def _measure(
    reply: Spooled, like: Mapping[str, Tensor], parameters: Collection[str], lowest: Mapping[str, float]
) -> Measures:
    """Measure an update whose tensors must be finite, like those of the run in name and shape, and of their domain."""
    update = reply.update()
    if odd := sorted(like.keys() ^ set(update.names)):
        raise _RefusedError(f"wrong names: {quantity(len(odd), 'tensor')} on one side only")
    total, peaks, squared = 0.0, dict[str, float](), defaultdict[str, float](float)
    for name, mine in like.items():
        tensor = update.tensor(name)
        if tensor.shape != mine.shape:
            raise _RefusedError(f"wrong shape: {name} is {tuple(tensor.shape)}, not {tuple(mine.shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise _RefusedError(f"{NOT_FINITE}: {name} has NaN or infinity")
        if tensor.numel() and tensor.min() < lowest.get(group_of(name), -math.inf):
            raise _RefusedError(f"out of range: {name} has values below {lowest[group_of(name)]:g}")
        moved = tensor.double() - mine if group_of(name) else tensor.double()
        squares = moved.square().sum().item()
        if name not in parameters:
            squared[group_of(name) or name] += squares
        elif tensor.numel():
            total, peaks[name] = total + squares, tensor.abs().max().item()
    return Measures(math.sqrt(total), peaks, {name: math.sqrt(squares) for name, squares in squared.items()})


def _check_numbers(reply: Spooled, config: RunConfig) -> None:
    """Patients weigh in the mean, where more than agreed are cut; steps divide the norm: they may not be made up.

    Where they scale the update too, after the clip, fewer would make it larger: they must be those of the patients.
    """
    train = config.train
    if reply.weight <= 0:
        raise _RefusedError(f"{reply.weight} patients")
    if not 0 < reply.steps <= train.local_steps(reply.ceiling):
        most = train.local_steps(reply.ceiling)
        agreed = quantity(reply.ceiling, "agreed patient")
        raise _RefusedError(f"{quantity(reply.steps, 'local step')}, not 1 to {most}, for {agreed} at most")
    if ALGORITHMS[config.algorithm.name].scales and reply.steps != (due := train.local_steps(reply.patients)):
        patients = quantity(reply.patients, "patient")
        raise _RefusedError(f"{quantity(reply.steps, 'local step')}, not {due}, as {patients} take")
