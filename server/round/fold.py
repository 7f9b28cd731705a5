"""Many updates into one, tensor by tensor or in slices, so that memory does not grow with the number of sites."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gliofed.shared.algorithms.groups import group_of
from gliofed.shared.config import FoldConfig

SLICE = 2**22
"""Values of all sites together that are in memory at once, in double precision: 32 MiB."""
ENOUGH = 3
"""Fewer updates have no majority, and no share that a ceiling could keep small."""


class Update(Protocol):
    """Anything that gives named tensors; `gliofed.shared.codec.CodedUpdate` reads them from disk."""

    def tensor(self, name: str) -> Tensor:
        """Return one tensor in fp32."""

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Return the values from `start` to `stop` of one tensor as it lies in memory, in fp32."""


@dataclass(frozen=True)
class Share:
    """One update in a fold."""

    update: Update
    weight: float
    """Patients; of folds that weigh by them."""


Fold = Callable[[Sequence[Share], Mapping[str, Tensor], FoldConfig], dict[str, Tensor]]
"""Folds updates, in the order of site names since the order of arrival must not show; the mapping gives shapes."""


def weighted_mean(
    shares: Sequence[Share], model: Mapping[str, Tensor], _: FoldConfig | None = None
) -> dict[str, Tensor]:
    """Mean of the updates, weighted by patients (McMahan et al. 2017, arXiv:1602.05629, algorithm 1).

    Sums in double precision.
    """
    patients = sum(share.weight for share in shares)
    mean = {}
    for name, mine in model.items():
        total = torch.zeros(mine.shape, dtype=torch.float64)
        for share in shares:
            total += share.update.tensor(name).double() * share.weight
        mean[name] = (total / patients).to(mine.dtype)
    return mean


def median(shares: Sequence[Share], model: Mapping[str, Tensor], _: FoldConfig) -> dict[str, Tensor]:
    """Median of each value, every site counting the same; of an even number the mean of the middle two.

    Source: Yin et al. 2018, arXiv:1803.01498, definition 1.
    """
    low, high = (len(shares) - 1) // 2, len(shares) // 2
    return _by_slices(shares, model, lambda values: values.sort(dim=0).values[[low, high]].mean(0))


def trimmed_mean(shares: Sequence[Share], model: Mapping[str, Tensor], config: FoldConfig) -> dict[str, Tensor]:
    """Mean of each value without the smallest and the largest ones, every site counting the same.

    As many are left out at each end as sites may be hostile. Source: Yin et al. 2018, arXiv:1803.01498, definition 2.
    """
    cut = _hostile(shares, config)
    return _by_slices(shares, model, lambda values: values.sort(dim=0).values[cut : len(shares) - cut].mean(0))


def krum(shares: Sequence[Share], model: Mapping[str, Tensor], config: FoldConfig) -> dict[str, Tensor]:
    """The update whose nearest others are nearest: the sum of squared distances to n - f - 2 of n, f of them hostile.

    The first in the order of names, of several. Source: Blanchard et al. 2017, arXiv:1703.02757, section 4.
    """
    distances = squared_distances(shares, model)
    near = max(1, len(shares) - _hostile(shares, config) - 2)
    scores = distances.fill_diagonal_(math.inf).sort(dim=1).values[:, :near].sum(dim=1)
    return weighted_mean([shares[int(scores.argmin())]], model)


def geometric_median(shares: Sequence[Share], model: Mapping[str, Tensor], _: FoldConfig) -> dict[str, Tensor]:
    """The point with the least sum of distances to the updates, weighted by patients: Weiszfeld's algorithm, smoothed.

    Source: Pillutla et al. 2022, arXiv:1912.13445, algorithm 2. The point is always a mean of the updates, so what is
    iterated are its weights: all distances follow from those between the updates.
    """
    given = torch.tensor([share.weight for share in shares], dtype=torch.float64)
    distances = squared_distances(shares, model)
    smallest = 1e-6 * distances.max().sqrt()  # of a distance that divides
    weights = given / given.sum()
    for _step in range(10_000):
        squares = distances @ weights - weights @ distances @ weights / 2
        pulls = given / squares.clamp(min=0).sqrt().clamp(min=smallest)
        before, weights = weights, pulls / pulls.sum()
        if not bool((weights - before).abs().max() > 1e-12):  # of updates that are all the same there is no pull
            break
    weights = weights if bool(weights.isfinite().all()) else given / given.sum()
    parts = zip(shares, weights.tolist(), strict=True)
    return weighted_mean([Share(share.update, weight) for share, weight in parts], model)


@dataclass(frozen=True)
class Rule:
    """How a federation folds."""

    fold: Fold
    by_patients: bool = False
    """Whether sites weigh as their patients, and not all the same."""


FOLDS = {
    "mean": Rule(weighted_mean, by_patients=True),
    "median": Rule(median),
    "trimmed_mean": Rule(trimmed_mean),
    "krum": Rule(krum),
    "geometric_median": Rule(geometric_median, by_patients=True),
}
"""Every fold by the name that a configuration uses."""


def fold(shares: Sequence[Share], model: Mapping[str, Tensor], config: FoldConfig) -> dict[str, Tensor]:
    """Fold as `config` says; fewer than three updates, of which no majority can be told, by their mean.

    Each group beside the update is folded by itself: the distances of one say nothing of the other.
    """
    rule, folded = FOLDS[config.name if len(shares) >= ENOUGH else "mean"].fold, dict[str, Tensor]()
    for group in dict.fromkeys(map(group_of, model)):
        folded |= rule(shares, {name: each for name, each in model.items() if group_of(name) == group}, config)
    return folded


def limit_shares(weights: Sequence[float], most: float) -> list[float]:
    """Lower the largest weights so that none is above the share `most` of all; the others stay as they are.

    Where so many sites cannot have as little as that each, all weigh the same. Fewer than three stay as they are.

    >>> limit_shares([1, 2, 13, 440], most=0.5)
    [1, 2, 13, 16.0]
    """
    if len(weights) < ENOUGH:
        return list(weights)
    if most * len(weights) <= 1:
        return [1.0] * len(weights)
    order = sorted(range(len(weights)), key=lambda place: -weights[place])
    limited, rest = list(weights), float(sum(weights))
    for number, place in enumerate(order):
        # With `number` sites at the ceiling, what the others leave them: share = most of (rest / (1 - number * most)).
        if weights[place] <= most * rest / (1 - number * most):
            break
        rest -= weights[place]
        for capped in order[: number + 1]:
            limited[capped] = most * rest / (1 - (number + 1) * most)
    return limited


def squared_distances(shares: Sequence[Share], model: Mapping[str, Tensor]) -> Tensor:
    """Squared L2 distances between all updates, (n, n), in double precision."""
    products = torch.zeros((len(shares), len(shares)), dtype=torch.float64)
    for _, _, values in _slices(shares, model):
        products += values @ values.T
    squares = products.diagonal()
    return (squares[:, None] + squares - 2 * products).clamp(min=0)


def _by_slices(
    shares: Sequence[Share], model: Mapping[str, Tensor], of: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Make each value of the result from the sites' values of it, given as (sites, values)."""
    folded = {name: torch.empty_like(mine).reshape(-1) for name, mine in model.items()}
    for name, start, values in _slices(shares, model):
        folded[name][start : start + values.shape[1]] = of(values).to(model[name].dtype)
    return {name: folded[name].reshape(mine.shape) for name, mine in model.items()}


def _slices(shares: Sequence[Share], model: Mapping[str, Tensor]) -> Iterator[tuple[str, int, Tensor]]:
    """Yield name, start and the sites' values (sites, values) of a part of each tensor."""
    length = max(1, SLICE // len(shares))
    for name, mine in model.items():
        for start in range(0, mine.numel(), length):
            stop = min(start + length, mine.numel())
            parts = [share.update.part(name, start, stop).double() for share in shares]
            yield name, start, torch.stack(parts)


def _hostile(shares: Sequence[Share], config: FoldConfig) -> int:
    """How many of the sites may be hostile; at least one, where there is a majority that it is not of."""
    return max(1, int(config.hostile * len(shares)))
