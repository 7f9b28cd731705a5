"""Histories and comparisons made up for reports, in the shape that the rounds write them."""

from typing import Any

from gliofed.server.report.record import Record
from gliofed.server.round.history import site_line

Event = dict[str, Any]
CONFIG = {
    "task": "segmentation",
    "rounds": 2,
    "model": {"name": "unet"},
    "data": {"regions": ["et", "wt"]},
    "fold": {"clip": 1.5, "max_share": 0.5},
    "privacy": {"mechanism": "none", "epsilon": 8.0, "test_seed": None},
}
PHANTOMS = {"data": {"source": "phantom"}}


def counted(dice: float | None, n: int | None = 40, **more: Any) -> Event:
    """The line of a site that counted and measured the model."""
    evaluate = None if dice is None else {"loss": 0.5, "dice": dice, "dice_et": dice - 0.2, "dice_wt": dice + 0.1}
    line = site_line(status="counted", patients=9, train={"loss": 0.5}, evaluate=evaluate, evaluated=n)
    return line | {"share": 0.5} | more


def absent(status: str, reason: str | None) -> Event:
    return site_line(status=status, reason=reason)


def round_of(number: int, dice: float | None, sites: dict[str, Event], **more: Any) -> Event:
    overall = None if dice is None else {"loss": 0.5, "dice": dice, "dice_et": dice - 0.2, "dice_wt": dice + 0.1}
    return {"event": "round", "round": number, "seconds": 2.0, "sites": sites, "global": overall} | more


def record_of(*events: Event, comparison: Event | None = None, simulated: bool = True, **config: Any) -> Record:
    """A run of these events; further words replace groups of its configuration."""
    description: Event = {"run": CONFIG | config} | ({"simulation": PHANTOMS} if simulated else {})
    return Record(name="run", description=description, events=list(events), comparison=comparison)


def measured_at_the_end(dice: float, sites: dict[str, float], n: int = 10) -> Event:
    """The measurement at the end, of the last model."""
    lines = {site: site_line(status="counted", evaluate={"dice": each}, evaluated=n) for site, each in sites.items()}
    last = {"round": 2, "sites": lines, "global": {"dice": dice}}
    return {"event": "test", "round": 2, "seconds": 1.0, "best_round": None, "models": {"last": last}}


def compared() -> Event:
    """Two sites, of which one gains; on 20 test patients."""

    def score(value: float, n: int = 10) -> Event:
        return {"patients": n, "metrics": {"dice": value}}

    def ends(value: float, width: float = 0.05) -> Event:
        return {"value": value, "low": value - width, "high": value + width}

    dice = {"federated": (0.8, 0.7), "pooled": (0.85, 0.75), "local site-a": (0.6, 0.5), "local site-b": (0.5, 0.69)}
    matrix = {model: {"site-a": score(a), "site-b": score(b)} for model, (a, b) in dice.items()}
    overall = {m: {"patients": 20, "metrics": {"dice": ends((a + b) / 2)}} for m, (a, b) in dice.items()}
    groups = {
        "high": {"patients": 12, "models": {model: ends(a) for model, (a, _) in dice.items()}},
        "low": {
            "patients": 8,
            "models": {model: {"value": b, "low": None, "high": None} for model, (_, b) in dice.items()},
        },
    }
    return {
        "task": "segmentation",
        "metric": "dice",
        "lower_is_better": False,
        "sites": ["site-a", "site-b"],
        "models": {model: {"samples": 32, "steps": 16, "seconds": 1.0, "round": None} for model in dice},
        "matrix": matrix,
        "overall": overall,
        "gains": {"site-a": {"patients": 10, **ends(0.2)}, "site-b": {"patients": 10, **ends(0.01)}},
        "over_pooled": ends(0.9375, 0.02),
        "worst_site": {"site": "site-b", "value": 0.7, "patients": 10},
        "subgroups": {"grade": groups},
    }
