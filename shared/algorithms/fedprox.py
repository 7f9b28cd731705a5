"""FedProx: a site is held near the weights that it was sent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.groups import Local

if TYPE_CHECKING:
    from torch import Tensor


class FedProx(FedAvg):
    """The local loss has the term mu / 2 ||w - w_t||^2, whose gradient is mu (w - w_t).

    Source: Li et al. 2020, arXiv:1812.06127, equation 2. mu = 0 is FedAvg.
    """

    corrects = True

    def correct(self, parameters: "Mapping[str, Tensor]", local: Local) -> None:
        """Add the term's gradient."""
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - local.start[name], alpha=local.config.mu)
