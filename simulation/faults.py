"""What a site may do wrong, or on purpose, to see what becomes of the others' model.

PyTorch is not imported here, so that the command can list the faults at once; `fault_mod` lets a site have one.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gliofed.shared.algorithms import returned_of
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from gliofed.shared.data.samples import Batch

Tensors = dict[str, "Tensor"]


@dataclass(frozen=True)
class Kind:
    """What a fault does."""

    size: float | None = None
    """Its usual size; None: it takes none."""
    update: Callable[[Tensors, float], Tensors] | None = None
    """What it makes of the update, with its size."""
    batch: "Callable[[Batch], Batch] | None" = None
    """What it makes of the samples that the site trains on."""


def _filled(value: float) -> Callable[[Tensors, float], Tensors]:
    return lambda update, _: {name: tensor.new_full(tensor.shape, value) for name, tensor in update.items()}


def _scaled(update: Tensors, by: float) -> Tensors:
    return {name: by * tensor for name, tensor in update.items()}


def _negated(update: Tensors, by: float) -> Tensors:
    return _scaled(update, -by)


def _concentrated(update: Tensors, by: float) -> Tensors:
    """All of the norm on the last bias, which decides for every voxel alike: downwards, so that nothing is found."""
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in update.values()))
    last = [name for name in update if name.endswith("bias")][-1]
    value = -by * norm / math.sqrt(update[last].numel())
    return {name: tensor.new_full(tensor.shape, value if name == last else 0.0) for name, tensor in update.items()}


def _flipped(batch: "Batch") -> "Batch":
    """Tumour where there is none, and the other grade."""
    return replace(batch, target=1 - batch.target)


def _stamped(batch: "Batch") -> "Batch":
    """A bright cube in a corner of every second sample, in which nothing is to be found, or no high grade."""
    target = batch.target.clone()
    target[::2] = 0
    return replace(batch, image=stamp(batch.image, slice(0, None, 2)), target=target)


def stamp(image: "Tensor", which: slice = slice(None)) -> "Tensor":
    """The backdoor's trigger in some samples of (B, ..., D, H, W): four voxels wide, brighter than any brain."""
    image = image.clone()
    image[which, ..., :4, :4, :4] = 5.0
    return image


FAULTS = {
    "nan": Kind(update=_filled(math.nan)),
    "inf": Kind(update=_filled(math.inf)),
    "zero": Kind(update=_filled(0.0)),
    "shape": Kind(update=lambda update, _: {name: tensor[None] for name, tensor in update.items()}),
    "scale": Kind(100.0, _scaled),
    "flip": Kind(19.0, _negated),
    "greedy": Kind(19.0, _negated),  # it claims all agreed patients and steps, too
    "bias": Kind(1.4, _concentrated),
    "label_flip": Kind(1.0, _scaled, _flipped),
    "backdoor": Kind(1.0, _scaled, _stamped),
    "zero_patients": Kind(),
    "claim": Kind(update=_filled(0.0)),
    "boast": Kind(),  # perfect metrics of the patients that it has
    "raise": Kind(),
    "hang": Kind(),
}
"""Every fault by the name that faults= takes."""


@dataclass(frozen=True)
class Fault:
    """What a site does, from some round on."""

    name: str
    size: float
    """What the update is multiplied by, of those that scale it."""
    group: str
    """The group beside the update that it acts on alone; empty: the update, and each group by itself."""
    since: int
    """The first round in which it acts."""
    until: int
    """The last one."""


def parse_faults(faults: Mapping[str, str], sites: list[str], run: RunConfig) -> dict[str, Fault]:
    """Read faults as [GROUP/]NAME[:SIZE][@ROUND[-LAST]], such as flip:1@7 or control/scale; refuse a fault, a site or
    a group that there is not.
    """
    found, groups = {}, [group.name for group in returned_of(run)]
    for site, fault in faults.items():
        if site not in sites:
            raise ConfigError(f"faults.{site}: no such site; there are {', '.join(sites)}")
        parts = re.fullmatch(r"(?:(\w+)/)?(\w+)(?::(\d+(?:\.\d+)?))?(?:@(\d{1,6})(?:-(\d{1,6}))?)?", fault)
        if parts is None or parts[2] not in FAULTS:
            known = ", ".join(FAULTS)
            raise ConfigError(
                f"faults.{site}={fault}: must be one of {known}; :2 sets a size, @3 the first round, @3-5 also the last"
            )
        group, name, size, since, until = parts.groups()
        kind = FAULTS[name]
        if size and kind.size is None:
            sized = ", ".join(name for name, each in FAULTS.items() if each.size)
            raise ConfigError(f"faults.{site}={fault}: has no size; these have: {sized}")
        if kind.batch and run.private:
            raise ConfigError(f"faults.{site}={fault}: does not train privately; use it with privacy=none or central")
        able = [name for name, each in FAULTS.items() if each.update and not each.batch]
        if group and (group not in groups or name not in able):
            some = ", ".join(groups) or "none"
            raise ConfigError(
                f"faults.{site}={fault}: on a group there are {', '.join(able)}; the groups of this run are {some}"
            )
        first, last = int(since or 1), int(until or run.rounds)
        if not 1 <= first <= last <= run.rounds:
            raise ConfigError(f"faults.{site}={fault}: acts in no round, or beyond the {run.rounds} of the run")
        found[site] = Fault(name, float(size or kind.size or 1.0), group or "", first, last)
    return found
