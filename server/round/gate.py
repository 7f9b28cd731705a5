"""What an update must be to count."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from server.round.spool import Spooled
from shared.codec import CodecError
from shared.config import RunConfig, TrainConfig

ENOUGH = 3
"""Fewer sites have no median that one of them cannot move."""


@dataclass(frozen=True)
class Verdicts:
    """The gate's word on one round."""

    refused: dict[str, str]
    """Site to reason."""
    norms: dict[str, float]
    """Site to the L2 norm of its update for one local step; of those with a readable, finite update."""


REASON = 200
"""Longest reason, in characters: parts of it come from the site."""


class _RefusedError(Exception):
    """An update that does not count; the text is the reason."""


def judge(
    replies: Iterable[Spooled],
    model: Mapping[str, Tensor],
    earlier: Sequence[float],
    config: RunConfig,
) -> Verdicts:
    """Judge each update alone, then its size against the others.

    `model` gives names and shapes, `earlier` the median norms of earlier rounds. With the gate off only what could
    not be folded at all is refused. With privacy=central each is judged alone: whether another counts must not tell of
    an update, and clipping bounds its size.
    """
    refused: dict[str, str] = {}
    norms: dict[str, float] = {}
    for reply in replies:
        try:
            norm = _norm(reply, model, finite=config.gate.enabled)
            if config.gate.enabled:
                _check_numbers(reply, config.train)
            # By its own steps: a hospital of 500 patients takes 40 times those of one of 13, and moves further.
            norms[reply.site] = norm / max(reply.steps, 1)
        except (_RefusedError, CodecError) as error:
            refused[reply.site] = str(error)[:REASON]
        except Exception as error:  # bytes from another house: whatever they do to a reader, the others go on
            refused[reply.site] = f"cannot be read: {type(error).__name__}"
    reference = _reference(list(norms.values()), earlier)
    limit = config.gate.max_norm_ratio * reference
    if config.gate.enabled and reference and config.privacy.mechanism != "central":
        for site, norm in norms.items():
            if norm > limit:
                refused[site] = f"update of norm {norm:.3g} a step: over {limit:.3g}, see gate.max_norm_ratio"
    return Verdicts(refused, {site: norm for site, norm in norms.items() if site not in refused})


def _reference(norms: Sequence[float], earlier: Sequence[float]) -> float:
    """The usual norm: the round's median, or with too few sites that of the earlier rounds; 0 where none is known."""
    usual = median(norms) if len(norms) >= ENOUGH else 0.0
    return usual or (median(earlier) if earlier else 0.0)


def _norm(reply: Spooled, model: Mapping[str, Tensor], *, finite: bool) -> float:
    """L2 norm over all tensors, which must be the model's in name and shape."""
    update = reply.update()
    if odd := sorted(model.keys() ^ set(update.names)):
        raise _RefusedError(f"wrong names: {len(odd)} tensors on one side only")
    total = 0.0
    for name, mine in model.items():
        tensor = update.tensor(name)
        if tensor.shape != mine.shape:
            raise _RefusedError(f"wrong shape: {name} is {tuple(tensor.shape)}, not {tuple(mine.shape)}")
        if finite and not bool(torch.isfinite(tensor).all()):
            raise _RefusedError(f"not finite: {name} has NaN or infinity")
        total += tensor.double().square().sum().item()
    return math.sqrt(total)


def _check_numbers(reply: Spooled, train: TrainConfig) -> None:
    """Patients weigh in the mean, steps divide the norm: neither may be made up."""
    if reply.patients <= 0:
        raise _RefusedError(f"{reply.patients} patients")
    if reply.patients > reply.cohort:
        raise _RefusedError(f"{reply.patients} patients, more than the {reply.cohort} of its cohort")
    if not 0 < reply.steps <= train.local_steps(reply.cohort):
        raise _RefusedError(f"{reply.steps} local steps, not 1 to {train.local_steps(reply.cohort)}")
