"""FedBN: normalisation layers stay at home."""

from typing import TYPE_CHECKING

from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.groups import Group

if TYPE_CHECKING:
    from torch import nn

HOME = Group("home")
"""Tensors of the model itself that do not travel."""


class FedBN(FedAvg):
    """Each site has its own scale, shift and running statistics of every norm; all else is averaged.

    Source: Li et al. 2021, arXiv:2102.07623, algorithm 1, which is of BatchNorm; here all norms with weights stay.
    A site that has no state begins with the norms of a new model.
    """

    kept = (HOME,)

    def at_home(self, model: "nn.Module") -> frozenset[str]:
        """Names of the tensors of all norms."""
        from torch.nn import GroupNorm, LayerNorm
        from torch.nn.modules.batchnorm import _NormBase  # of BatchNorm and InstanceNorm

        kinds = GroupNorm | LayerNorm | _NormBase
        norms = {prefix: each for prefix, each in model.named_modules() if isinstance(each, kinds)}
        return frozenset(f"{prefix}.{name}" for prefix, norm in norms.items() for name in norm.state_dict())
