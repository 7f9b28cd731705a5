"""Series that the events of a run hold, for figures: a value a round. NaN makes a gap; a missing round makes none."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gliofed.server.report.sentences import rests
from gliofed.shared.events import Event
from gliofed.shared.tasks import TASKS
from gliofed.shared.tasks.scores import COUNTS
from gliofed.shared.tasks.segmentation import RANGES

Events = Sequence[Event]
Series = dict[int, float]
"""A value a round, NaN where there was none."""
NOT_DRAWN = "not drawn"
"""Beside a line's statuses: a site that round.sample let rest."""
_NO_QUALITY = {"loss", *COUNTS}


def finished(events: Events) -> list[Event]:
    """The rounds that have a model, in order."""
    return [event for event in events if event["event"] == "round"]


def axis(events: Events) -> list[int]:
    """Numbers of the finished rounds; 0 before them where given weights were measured."""
    return sorted({event["round"] for event in _evaluated(events)})


def training_loss(events: Events) -> Series:
    """Mean of the counted sites' training losses, weighted as their updates are."""
    means = {}
    for event in finished(events):
        known = [(_loss(line), _weight(line)) for line in event["sites"].values()]
        known = [(loss, patients) for loss, patients in known if math.isfinite(loss)]
        total = sum(patients for _, patients in known)
        means[event["round"]] = sum(loss * n for loss, n in known) / total if known else math.nan
    return means


def site_losses(events: Events) -> dict[str, Series]:
    """Each site's training loss; NaN where the site was asked and did not count."""
    losses: dict[str, Series] = {}
    for event in finished(events):
        for site, line in event["sites"].items():
            if line["status"] != "not_invited":
                losses.setdefault(site, {})[event["round"]] = _loss(line)
    return dict(sorted(losses.items()))


def validation(events: Events, metric: str) -> Series:
    """`metric` over all validation patients; rounds without an evaluation are not there. Round 0: given weights."""
    values = {event["round"]: event["global"].get(metric) for event in _evaluated(events) if event["global"]}
    return {round: _number(value) for round, value in values.items()}


def site_metrics(events: Events, metric: str) -> dict[str, Series]:
    """`metric` on each site's validation patients; NaN where the round was evaluated and the site has no value."""
    values: dict[str, Series] = {}
    for event in _evaluated(events):
        if event["global"] or any(line.get("evaluate") for line in event["sites"].values()):
            for site, line in event["sites"].items():
                values.setdefault(site, {})[event["round"]] = _number((line["evaluate"] or {}).get(metric))
    return dict(sorted(values.items()))


def metrics(events: Events) -> list[str]:
    """What is measured beside the loss, without what has a name in parts, as dice_et; the task's headline first."""
    known = _names(events)
    means = [name for name in known if name not in _NO_QUALITY and _part_of(name) not in known]
    return sorted(means, key=lambda name: name not in _headlines())


def regions(events: Events, metric: str) -> list[str]:
    """Parts by which `metric` is known too, as et of dice_et; intervals are none."""
    parts = [name.removeprefix(f"{metric}_") for name in _names(events) if _part_of(name) == metric]
    return [part for part in parts if part not in ("low", "high")]


def headline(events: Events) -> str:
    """The metric to show first: of the task whose metrics these are, of segmentation where there are none."""
    return next((name for name in _headlines() if name in known_metrics(events)), _headlines()[0])


def known_metrics(events: Events) -> set[str]:
    """Every metric that a site named, after a round or in the test; a run may be without the one or the other."""
    models = [model for event in events if event["event"] == "test" for model in event["models"].values()]
    lines = [line for model in models for line in model["sites"].values()]
    return {*_names(events)}.union(*(line["evaluate"] or () for line in lines))


def statuses(events: Events) -> dict[str, dict[int, str]]:
    """How each site took part in each round, by its last attempt; a site that rests is `not drawn`."""
    found: dict[str, dict[int, str]] = {}
    for event in attempted(events).values():
        for site, line in event["sites"].items():
            found.setdefault(site, {})[event["round"]] = NOT_DRAWN if rests(line) else str(line["status"])
    return dict(sorted(found.items()))


def attempted(events: Events) -> dict[int, Event]:
    """The last event of each round that was tried, finished or failed, by its number."""
    tried = {event["round"]: event for event in events if event["event"] in ("round", "round_failed")}
    return dict(sorted(tried.items()))


def shares(events: Events) -> dict[str, Series]:
    """Each counted site's share of the weight in each finished round, 0 to 1; where none was noted, by its patients."""
    found: dict[str, Series] = {}
    for event in finished(events):
        counted = {site: _weight(line) for site, line in event["sites"].items() if line["status"] == "counted"}
        for site, weight in counted.items():
            found.setdefault(site, {})[event["round"]] = weight / (sum(counted.values()) or 1.0)
    return dict(sorted(found.items()))


def traffic(events: Events, key: str) -> Series:
    """Bytes of all sites in each round that was tried; `key` is bytes_down or bytes_up."""
    return {
        round: float(sum(line.get(key) or 0 for line in event["sites"].values()))
        for round, event in attempted(events).items()
    }


def seconds(events: Events) -> Series:
    """Wall time of each round that was tried."""
    return {round: _number(event.get("seconds")) for round, event in attempted(events).items()}


def epsilons(events: Events) -> dict[str, Series]:
    """Privacy spent so far, by site, or of `all sites` where the aggregator adds noise; empty without privacy."""
    spent: dict[str, Series] = {}
    for round, event in attempted(events).items():
        for site, line in event["sites"].items():
            if line.get("epsilon") is not None:
                spent.setdefault(site, {})[round] = float(line["epsilon"])
        if event.get("epsilon") is not None:
            spent.setdefault("all sites", {})[round] = float(event["epsilon"])
    return dict(sorted(spent.items()))


def test_scores(events: Events, metric: str) -> dict[str, tuple[int, float]]:
    """`metric` over the test patients of all sites: by model, last or best, its round and the value."""
    models = {name: model for event in events if event["event"] == "test" for name, model in event["models"].items()}
    scores = {name: (model["round"], _number((model["global"] or {}).get(metric))) for name, model in models.items()}
    return {name: score for name, score in scores.items() if not math.isnan(score[1])}


def _evaluated(events: Events) -> Iterator[Event]:
    return (event for event in events if event["event"] in ("initial", "round"))


def _part_of(name: str) -> str:
    """The metric that `name` is a part of, as dice of dice_et; empty for a metric, as dice_change."""
    return "" if name in RANGES else name.rpartition("_")[0]


def _headlines() -> list[str]:
    return [task.headline for task in TASKS.values()]


def _names(events: Events) -> list[str]:
    """Of all metrics, in the order in which a site first named them."""
    found: dict[str, None] = {}
    for event in _evaluated(events):
        for values in (*(line["evaluate"] for line in event["sites"].values()), event["global"]):
            found |= dict.fromkeys(values or {})
    return list(found)


def _weight(line: Mapping[str, Any]) -> float:
    """Its share in the fold, or its patients; private updates of whole sites have neither, and all weigh the same."""
    share = line.get("share")
    return float(line["patients"] or 1) if share is None else float(share)


def _loss(line: Mapping[str, Any]) -> float:
    """A counted site's training loss; NaN where it did not count, or its loss was not finite."""
    return _number((line["train"] or {}).get("loss") if line["status"] == "counted" else None)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
