"""How large an update may be, and how much it may weigh: bounds that no single site sets.

The size of an update is its L2 norm over the root of its local steps: steps go in all directions, so that their sum
grows as the root of their number. Of honest updates it is nearly flat: see docs/threats.md.
"""

import math
from collections.abc import Mapping, Sequence

from server.round.fold import BY_PATIENTS, ENOUGH, Share, limit_shares
from server.round.history import Event
from server.round.spool import Spooled
from shared.accounting import noise_for
from shared.config import RunConfig

NO_VOTE = 20
"""An update that is so many times smaller than a usual one says nothing of how large updates are: a majority that sends
zeros would clip everybody to nothing, and the model would stay as it is."""


def usual_size(config: RunConfig, parameters: int, round: int, patients: int) -> float:
    """About the size of an honest update of so many trainable parameters, as the configuration alone tells.

    A step of AdamW moves each parameter by about its learning rate, whatever the gradient is (Kingma and Ba 2015,
    arXiv:1412.6980, section 2.1). A private step is one of SGD, whose gradient is hardly more than noise, which follows
    from the budget and from `patients`, the most that any site has.
    """
    privacy = config.privacy
    if not config.private:
        return config.train.lr * math.sqrt(parameters)
    delta, steps = privacy.delta or 1 / (10 * max(patients, 1)), config.train.local_steps(patients)
    if privacy.mechanism == "local_update":
        sigma = noise_for(privacy.epsilon, delta, 1.0, config.rounds)
        return privacy.clip * math.sqrt(1 + 4 * parameters * sigma**2) / math.sqrt(steps)
    sigma = noise_for(privacy.epsilon, delta, min(1.0, privacy.batch / max(patients, 1)), config.rounds * steps)
    lr = privacy.lr * (1 - (round - 1) / config.rounds if privacy.schedule == "linear" else 1.0)
    return lr / (1 - privacy.momentum) * privacy.clip * math.sqrt(1 + parameters * sigma**2) / privacy.batch


def reference_size(sizes: Sequence[float], usual: float) -> float:
    """The size of a round: the lower median of the sites' sizes and of `usual`, which votes beside them.

    So in a run of two sites neither sets it alone, and a majority of updates of nothing does not set it at all.

    >>> reference_size([0.8, 0.9, 1.0, 1000.0], usual=0.7)
    0.9
    >>> reference_size([0.8, 1000.0], usual=0.7)
    0.8
    >>> reference_size([0.0, 0.0, 0.8], usual=0.7)
    0.7
    """
    votes = sorted([usual, *(size for size in sizes if size >= usual / NO_VOTE)])
    return votes[(len(votes) - 1) // 2]


def bounded(
    counted: Sequence[Spooled], norms: Mapping[str, float], config: RunConfig, usual: float | None
) -> tuple[list[Share], dict[str, Event]]:
    """Clip each update to fold.clip times the round's size, and each weight to fold.max_share.

    `usual` is None in a run of one site, which is bounded by nothing. Returns the shares for the fold and, by site,
    what the history says: `size` in multiples of the round's, `clipped` the factor where it was, `share` of the weight,
    and `share_before` where the ceiling lowered it.
    """
    sizes = {reply.site: norms[reply.site] / math.sqrt(max(reply.steps, 1)) for reply in counted}
    reference = reference_size(list(sizes.values()), usual) if usual else 0.0
    weights = [reply.weight for reply in counted]
    limited = limit_shares(weights, config.fold.max_share)
    shares, lines = [], {}
    for reply, before, weight in zip(counted, weights, limited, strict=True):
        line: Event = {}
        factor = 1.0
        if reference:
            line["size"] = round(sizes[reply.site] / reference, 4)
            if config.fold.clip is not None and sizes[reply.site] > config.fold.clip * reference:
                factor = config.fold.clip * reference / sizes[reply.site]
                line["clipped"] = round(factor, 6)
        if config.fold.name in BY_PATIENTS or len(counted) < ENOUGH:
            line["share"] = round(weight / sum(limited), 4)
            if weight < before:
                line["share_before"] = round(before / sum(weights), 4)
        shares.append(Share(reply.update(), weight, factor))
        lines[reply.site] = line
    return shares, lines
