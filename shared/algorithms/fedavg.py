"""Federated averaging, and the places where another method differs from it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gliofed.shared.algorithms.groups import Group, Groups, Local

if TYPE_CHECKING:
    from torch import Tensor, nn


class FedAvg:
    """Sites train from the same weights, and their updates are averaged.

    Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
    """

    sent: tuple[Group, ...] = ()
    """Beside the weights to every site, where they are zero at first."""
    returned: tuple[Group, ...] = ()
    """Beside the update to the server, which folds them as it folds that."""
    kept: tuple[Group, ...] = ()
    """At a site, until its next round."""
    corrects = False
    """Whether `correct` does anything: then a site also keeps, during the round, the weights that it began with."""

    scales = False
    """Whether `factors` does anything."""

    def at_home(self, model: "nn.Module") -> frozenset[str]:
        """Names of the model's tensors that do not travel: a site goes on from its own."""
        return frozenset()

    def correct(self, parameters: "Mapping[str, Tensor]", local: Local) -> None:
        """Change the gradients of `parameters`, by name, before a local step.

        The gradients are those of the batch's mean loss, unscaled, before they are clipped.
        """

    def finish(self, parameters: "Mapping[str, Tensor]", local: Local) -> tuple[Groups, Groups]:
        """After the last local step, make what is returned beside the update, and what is kept."""
        return {}, {}

    def factors(self, steps: Sequence[int], weights: Sequence[float]) -> list[float]:
        """What each site's update is multiplied by before the fold, from the local steps and the weights of all that
        count, in one order.
        """
        return [1.0] * len(steps)

    def step(self, groups: Groups, folded: Groups, part: float) -> Groups:
        """Make the groups that are sent from those of this round, from what was folded of the returned ones, and from
        the part of the sites that counted.
        """
        return groups
