"""FedNova: no site counts more because it took more steps."""

from collections.abc import Sequence

from gliofed.shared.algorithms.fedavg import FedAvg


class FedNova(FedAvg):
    """The model moves by tau * sum(p_i * update_i / tau_i), with tau_i steps at site i and tau = sum(p_i * tau_i).

    p_i is the site's share of the weight, after fold.max_share.
    Source: Wang et al. 2020, arXiv:2007.07481, for plain local SGD, of which all steps of a round weigh the same.
    """

    scales = True

    def factors(self, steps: Sequence[int], weights: Sequence[float]) -> list[float]:
        """Effective steps over the site's own; exactly 1 where all took equally many.

        >>> FedNova().factors([1, 3], [1, 1])
        [2.0, 0.6666666666666666]
        """
        total = sum(weights)
        return [sum(w * (tau / own) for w, tau in zip(weights, steps, strict=True)) / total for own in steps]
