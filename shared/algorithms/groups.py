"""Groups of tensors that go beside the weights and beside an update, or that a site keeps.

In a file and on the wire, which have one flat list of names, a tensor of a group is `GROUP/NAME`; the model's own have
no slash. So each of them passes whatever the update passes: codec, spool, gate, clip, fold and both logs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from gliofed.shared.algorithms import AlgorithmConfig
    from gliofed.shared.algorithms.optimizers import OptimizerConfig

Groups = dict[str, "dict[str, Tensor]"]
"""Tensors by group and by the name of their parameter, whose shape they have."""


@dataclass(frozen=True)
class Group:
    """A tensor for each parameter."""

    name: str
    lowest: float | None = None
    """Least value that any may have; None: any finite one will do."""


@dataclass(frozen=True, kw_only=True)
class Local:
    """One round at one site, as its method sees it; all tensors are on the model's device."""

    config: "AlgorithmConfig"
    optimizer: "OptimizerConfig"
    round: int = 1
    steps: int
    """Local steps of the round."""
    rate: float
    """Their learning rate."""
    start: "dict[str, Tensor]" = field(default_factory=dict)
    """The parameters as they were sent, by name; of methods that want them."""
    sent: Groups = field(default_factory=dict)
    """What came beside the weights."""
    kept: Groups = field(default_factory=dict)
    """What this site kept of its last round that counted; of the method's groups, zeros where it kept nothing."""


def joined(tensors: "Mapping[str, Tensor]", groups: "Mapping[str, Mapping[str, Tensor]]") -> "dict[str, Tensor]":
    """All tensors in one flat mapping, as they travel."""
    flat = dict(tensors)
    for group, named in groups.items():
        flat |= {f"{group}/{name}": tensor for name, tensor in named.items()}
    return flat


def parted(flat: "Mapping[str, Tensor]") -> "tuple[dict[str, Tensor], Groups]":
    """Inverse of `joined`.

    >>> parted({"w": 1, "control/w": 2, "control/b": 3})
    ({'w': 1}, {'control': {'w': 2, 'b': 3}})
    """
    own: dict[str, Tensor] = {}
    groups: Groups = {}
    for key, tensor in flat.items():
        group, slash, name = key.rpartition("/")
        (groups.setdefault(group, {}) if slash else own)[name] = tensor
    return own, groups


def zeros(groups: Iterable[Group], parameters: "Mapping[str, Tensor]") -> Groups:
    """A zero for each value of the parameters, in each of the groups."""
    return {
        group.name: {name: each.detach().new_zeros(each.shape) for name, each in parameters.items()} for group in groups
    }


def group_of(name: str) -> str:
    """The group that a name on the wire is of; empty for the update itself.

    >>> group_of("control/conv.weight"), group_of("conv.weight")
    ('control', '')
    """
    return name.rpartition("/")[0]
