"""Many updates into one, tensor by tensor, so that memory does not grow with the number of sites."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Update(Protocol):
    """Anything that gives named tensors; `shared.codec.CodedUpdate` reads them from disk."""

    def tensor(self, name: str) -> Tensor:
        """Return one tensor in fp32."""


def weighted_mean(updates: Sequence[tuple[Update, int]], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mean of the updates, weighted by patients (McMahan et al. 2017, arXiv:1602.05629, algorithm 1).

    Sums in double precision in the order given, which is that of site names: the order of arrival must not show.
    """
    patients = sum(weight for _, weight in updates)
    mean = {}
    for name, mine in model.items():
        total = torch.zeros(mine.shape, dtype=torch.float64)
        for update, weight in updates:
            total += update.tensor(name).double() * weight
        mean[name] = (total / patients).to(mine.dtype)
    return mean
