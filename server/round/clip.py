"""How large an update may be, and how much it may weigh: bounds that no single site sets.

The size of an update is its L2 norm over how far its local steps usually go, in multiples of what the configuration
lets expect: steps of AdamW go in all directions, so that their sum grows as the root of their number; those of Muon
follow its momentum for a while. Of honest updates the size is nearly flat: see docs/threats.md. With sgd it is the norm
as a share of the update's ceiling.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low

from torch import Tensor

from gliofed.server.round.ceiling import ceiling, has_ceiling, reference_share
from gliofed.server.round.fold import ENOUGH, FOLDS, Share, Update, limit_shares
from gliofed.server.round.gate import Measures
from gliofed.server.round.history import Event
from gliofed.server.round.spool import Spooled
from gliofed.shared.accounting import default_delta, noise_for
from gliofed.shared.algorithms.groups import group_of
from gliofed.shared.algorithms.optimizers import OPTIMIZERS, rate_of
from gliofed.shared.config import RunConfig

NO_VOTE = 4
"""An update that is so many times smaller than a usual one says nothing of how large updates are: a majority that sends
next to nothing would clip everybody to that, and the model would stay as it is."""
TAIL = 4.0
"""Deviations of Gaussian noise; fold.clip of these are as far as the largest of some million values goes."""


@dataclass(frozen=True)
class Clipped:
    """An update that is scaled tensor by tensor, and whose values are then clamped."""

    update: Update
    factors: Mapping[str, float]
    """By tensor, or by group beside the update; 1 where there is none."""
    most: Mapping[str, float]
    """Largest absolute value, by tensor; any where there is none."""
    like: Mapping[str, Tensor] = field(default_factory=dict)
    """With the tensors of groups as they were sent: what is scaled of these is the change."""

    def tensor(self, name: str) -> Tensor:
        """Return one tensor in fp32."""
        return self._bounded(name, self.update.tensor(name), slice(None))

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Return the values from `start` to `stop` of one tensor as it lies in memory, in fp32."""
        return self._bounded(name, self.update.part(name, start, stop), slice(start, stop))

    def _bounded(self, name: str, values: Tensor, which: slice) -> Tensor:
        if (factor := self.factors.get(group_of(name) or name, 1.0)) != 1.0:
            if group_of(name):
                values = self.like[name].reshape(-1)[which].reshape(values.shape).lerp(values, factor)
            else:
                values = values * factor
        return values.clamp(-self.most[name], self.most[name]) if name in self.most else values


def usual_size(config: RunConfig, shapes: Collection[Sequence[int]], round: int, patients: int) -> float:
    """About the size of an honest update of trainable tensors of these `shapes`, as the configuration alone tells.

    A step of AdamW moves each parameter by about its learning rate, whatever the gradient is (Kingma and Ba 2015,
    arXiv:1412.6980, section 2.1), and one of Muon each tensor by a known norm. Of sgd no such size is known: see
    `gliofed.server.round.ceiling`. A private step is one of SGD, whose gradient is hardly more than noise, which
    follows from the budget and from the number of `patients` that the site tells, as its own plan does.
    """
    privacy = config.privacy
    if not config.private:
        return rate_of(config, round) * math.hypot(*map(OPTIMIZERS[config.optimizer.name].length, shapes))
    parameters = sum(map(math.prod, shapes))
    patients, steps = max(patients, 1), config.train.local_steps(patients)
    if privacy.mechanism == "local_update":
        sigma = _noise(config, 1.0, config.rounds)
        return privacy.clip * math.sqrt(1 + 4 * parameters * sigma**2) / math.sqrt(steps)
    sigma = _noise(config, min(1.0, privacy.batch / patients), config.rounds * steps)
    lr = privacy.lr * (1 - (round - 1) / config.rounds if privacy.schedule == "linear" else 1.0)
    # Of SGD with momentum, which starts anew: the noise of a step enters this one and all that follow, ever less.
    reach = [(1 - privacy.momentum**left) / (1 - privacy.momentum) for left in range(1, steps + 1)]
    return (
        lr * privacy.clip * math.sqrt((1 + parameters * sigma**2) * sum(r * r for r in reach) / steps) / privacy.batch
    )


def reference_size(sizes: Sequence[float]) -> float:
    """The size of a round: the lower median of the sites' sizes and of 1, the usual one, which votes beside them.

    So in a run of two sites neither sets it alone, and a majority of updates of nothing does not set it at all.

    >>> reference_size([1.1, 1.2, 1.3, 1000.0])
    1.2
    >>> reference_size([1.1, 1000.0])
    1.1
    >>> reference_size([0.0, 0.0, 1.1])
    1.0
    """
    return median_low([1.0, *(size for size in sizes if size >= 1 / NO_VOTE)])


def bounded(
    counted: Sequence[Spooled],
    measures: Mapping[str, Measures],
    config: RunConfig,
    parameters: Mapping[str, int] | None,
    round: int,
    norm: float = 0.0,
    like: Mapping[str, Tensor] | None = None,
) -> tuple[list[Share], dict[str, Event]]:
    """Clip each update to fold.clip times the round's size, and each weight to fold.max_share.

    No parameter moves further than fold.clip times as far as it can in so many steps, or as noise goes: the whole size
    on the few values of a bias would decide what the model says. Buffers, which follow the data and not the steps, and
    groups beside the update are clipped one by one to the round's median: groups in what they changed from `like`, as
    of `judge`, since all of what was sent comes back, and a bound on its size would grow with it. With sgd nothing
    moves beyond its ceiling either, which follows from `norm`, the L2 norm of the trainable weights before the round.

    `parameters` has the trainable ones with their numbers of values; None in a run of one site, which is bounded by
    nothing. Returns the shares for the fold and, by site, what the history says: `size` in multiples of the round's,
    `clipped` the factor where it was, `clipped_buffers` that of each buffer or group that was, `peak` the largest move
    in multiples of what is allowed where it is more, `share` of the weight, and `share_before` where that was lowered.
    """
    weights = [1 if config.privacy.mechanism == "local_update" else reply.weight for reply in counted]
    limited, clip = limit_shares(weights, config.fold.max_share), config.fold.clip
    lines: dict[str, Event] = {reply.site: {} for reply in counted}
    updates: dict[str, Update] = {reply.site: reply.update() for reply in counted}
    if parameters is not None:
        total = sum(parameters.values())
        shapes = {name: tuple(like[name].shape) if like else (number,) for name, number in parameters.items()}
        largest = {name: like[name].abs().max().item() if like else 0.0 for name in parameters}
        usual = {reply.site: usual_size(config, shapes.values(), round, reply.weight) for reply in counted}
        ceilings = {reply.site: ceiling(config, round, reply.steps, norm) for reply in counted}
        sizes = _sizes(counted, measures, usual, ceilings, config)
        norms = [each.others for each in measures.values()]
        others = {name: median_low([site[name] for site in norms]) for name in norms[0]}
        for reply in counted:
            site, size, own = reply.site, sizes[reply.site], measures[reply.site]
            lines[site]["size"] = _rounded(size)
            if clip is None:
                continue
            factor = min(1.0, clip / size, ceilings[site] / own.norm) if size else 1.0
            bound = _farthest(config, usual[site], total, reply.steps, round)
            most = {name: min(clip * bound(shape, largest[name]), ceilings[site]) for name, shape in shapes.items()}
            large = {n: clip * others[n] / norm for n, norm in own.others.items() if norm > clip * others[n]}
            peak = max((value * factor / most[name] for name, value in own.peaks.items()), default=0.0)
            lines[site] |= _bounds_met(factor, peak, large)
            factors = dict.fromkeys(parameters, factor) | large
            updates[site] = Clipped(updates[site], factors, most, like or {})
    if FOLDS[config.fold.name].by_patients or len(counted) < ENOUGH:
        for reply, before, weight in zip(counted, weights, limited, strict=True):
            lines[reply.site] |= _share(before / sum(weights), weight / sum(limited), weight < before)
    return [Share(updates[r.site], weight) for r, weight in zip(counted, limited, strict=True)], lines


def scaled(shares: Sequence[Share], factors: Sequence[float], parameters: Collection[str]) -> list[Share]:
    """Each update times its factor, in `parameters` alone: buffers and groups do not grow with the steps."""
    return [
        Share(Clipped(share.update, dict.fromkeys(parameters, factor), {}), share.weight)
        for share, factor in zip(shares, factors, strict=True)
    ]


def _bounds_met(factor: float, peak: float, large: Mapping[str, float]) -> Event:
    met: Event = {"clipped": _rounded(factor)} if factor < 1 else {}
    met |= {"peak": _rounded(peak)} if peak > 1.001 else {}  # and not by rounding
    return met | ({"clipped_buffers": {name: _rounded(each) for name, each in large.items()}} if large else {})


def _share(before: float, share: float, lowered: bool) -> Event:
    return {"share": share} | ({"share_before": before} if lowered else {})


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _sizes(
    counted: Sequence[Spooled],
    measures: Mapping[str, Measures],
    usual: Mapping[str, float],
    ceilings: Mapping[str, float],
    config: RunConfig,
) -> dict[str, float]:
    """The size of each site's update, in multiples of the round's."""
    if has_ceiling(config):
        sizes = {reply.site: measures[reply.site].norm / ceilings[reply.site] for reply in counted}
        reference = reference_share([*sizes.values()])
    else:
        sizes = {r.site: measures[r.site].norm / _reach(config, max(r.steps, 1)) / usual[r.site] for r in counted}
        reference = reference_size([*sizes.values()])
    return {site: size / reference for site, size in sizes.items()}


def _reach(config: RunConfig, steps: int) -> float:
    """How far so many steps of length 1 usually go; private ones are mostly noise."""
    if config.private:
        return math.sqrt(steps)
    return OPTIMIZERS[config.optimizer.name].reach(steps, config.optimizer.momentum)


def _farthest(
    config: RunConfig, usual: float, parameters: int, steps: int, round: int
) -> Callable[[Sequence[int], float], float]:
    """How far one value of a tensor of some shape and largest value goes at most in an honest round: in each step as
    far as the optimiser moves it, and towards zero by the weight decay; or as noise goes.

    Of SGD, of which one parameter may have the whole gradient, its ceiling alone tells.
    """
    if has_ceiling(config):
        return lambda shape, largest: math.inf
    if not config.private:
        rate, farthest = rate_of(config, round), OPTIMIZERS[config.optimizer.name].farthest
        decayed = 1 - (1 - min(1.0, rate * config.train.weight_decay)) ** steps
        return lambda shape, largest: rate * steps * farthest(shape) + decayed * largest
    return lambda shape, largest: TAIL * usual * math.sqrt(steps / parameters)


def _noise(config: RunConfig, rate: float, steps: int) -> float:
    """About the noise multiplier of a site; its own budget may be another, which has noise where here is none."""
    epsilon = config.privacy.epsilon
    while True:
        try:
            return noise_for(epsilon, config.privacy.delta or default_delta(None), rate, steps)
        except ValueError:
            epsilon *= 2
