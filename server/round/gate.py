"""What an update must be to count."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from server.round.spool import Spooled
from shared.codec import CodecError
from shared.config import RunConfig, TrainConfig


@dataclass(frozen=True)
class Verdicts:
    """The gate's word on one round."""

    refused: dict[str, str]
    """Site to reason."""
    norms: dict[str, float]
    """Site to the L2 norm of its update; of those that count."""


REASON = 200
"""Longest reason, in characters: parts of it come from the site."""


class _RefusedError(Exception):
    """An update that does not count; the text is the reason."""


def judge(replies: Iterable[Spooled], model: Mapping[str, Tensor], config: RunConfig) -> Verdicts:
    """Judge each update alone; `model` gives names and shapes. How large one may be is for `server.round.clip`."""
    refused: dict[str, str] = {}
    norms: dict[str, float] = {}
    for reply in replies:
        try:
            norms[reply.site] = _norm(reply, model)
            _check_numbers(reply, config.train)
        except (_RefusedError, CodecError) as error:
            refused[reply.site] = str(error)[:REASON]
        except Exception as error:  # bytes from another house: whatever they do to a reader, the others go on
            refused[reply.site] = f"cannot be read: {type(error).__name__}"
    return Verdicts(refused, {site: norm for site, norm in norms.items() if site not in refused})


def _norm(reply: Spooled, model: Mapping[str, Tensor]) -> float:
    """L2 norm over all tensors, which must be finite and the model's in name and shape."""
    update = reply.update()
    if odd := sorted(model.keys() ^ set(update.names)):
        raise _RefusedError(f"wrong names: {len(odd)} tensors on one side only")
    total = 0.0
    for name, mine in model.items():
        tensor = update.tensor(name)
        if tensor.shape != mine.shape:
            raise _RefusedError(f"wrong shape: {name} is {tuple(tensor.shape)}, not {tuple(mine.shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise _RefusedError(f"not finite: {name} has NaN or infinity")
        total += tensor.double().square().sum().item()
    return math.sqrt(total)


def _check_numbers(reply: Spooled, train: TrainConfig) -> None:
    """Patients weigh in the mean, where more than agreed are cut; steps divide the norm: they may not be made up."""
    if reply.patients <= 0:
        raise _RefusedError(f"{reply.patients} patients")
    if not 0 < reply.steps <= train.local_steps(reply.ceiling):
        most = train.local_steps(reply.ceiling)
        raise _RefusedError(f"{reply.steps} local steps, not 1 to {most}, for {reply.ceiling} agreed patients at most")
