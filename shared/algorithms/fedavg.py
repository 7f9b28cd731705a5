"""Federated averaging, and the places where another method differs from it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from gliofed.shared.algorithms import AlgorithmConfig


class FedAvg:
    """Sites train from the same weights, and their updates are averaged.

    Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1.
    """

    corrects = False
    """Whether `correct` does anything: then a site keeps the weights that its round began with."""

    def correct(
        self, parameters: "Mapping[str, Tensor]", start: "Mapping[str, Tensor]", config: "AlgorithmConfig"
    ) -> None:
        """Change the gradients of `parameters`, by name, before a local step; `start` are those of the round's start.

        The gradients are those of the batch's mean loss, unscaled, before they are clipped.
        """
