"""What the scores say: a matrix of models and sites, and the differences that matter, with bootstrap intervals.

An interval is the middle 95 % of RESAMPLES draws, with replacement, of as many test patients as its value is of. The
draws are the same for every model, so differences are paired. Source: Efron and Tibshirani 1993, chapter 13.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Literal

import numpy as np

from gliofed.shared.config import DataConfig
from gliofed.shared.seeding import generator
from gliofed.shared.tasks import TASKS, Task
from gliofed.shared.tasks.means import Floats, as_json, ratio
from gliofed.shared.tasks.scores import RESAMPLES, interval

FEDERATED, POOLED = "federated", "pooled"
OWN = "local "
"""Before the site's name, in the name of a model that the site trained alone."""
FEWEST = 6
"""Patients of one site from which a difference may count; of five, all differ the same way by chance 1 time in 16."""
NOT_KNOWN = "not known"
Measures = list[dict[str, float]]
"""Of one model: what its task measures of each test patient, in their order."""


@dataclass(frozen=True)
class Subject:
    """One test patient; None: not known."""

    site: str
    patient: str
    scanner: str | None
    grade: str | None
    volume: float | None
    """cm3 of the tumour, all labels, at the first visit."""


def compare(
    task_name: str, data: DataConfig, tested: Sequence[Subject], measured: Mapping[str, Measures]
) -> dict[str, Any]:
    """Compare the models by their measures of the test patients; no patient is named in it.

    Differences and ratios are as they are, also of a metric of which less is better, as `lower_is_better` says.
    """
    task = TASKS[task_name]
    sites = sorted({one.site for one in tested})
    at = {site: [place for place, one in enumerate(tested) if one.site == site] for site in sites}
    everybody = list(range(len(tested)))
    matrix = {
        model: {site: _of_site(task, [measures[place] for place in at[site]]) for site in sites}
        for model, measures in measured.items()
    }
    found: dict[str, Any] = {
        "task": task_name,
        "metric": task.headline,
        "lower_is_better": task.lower_is_better,
        "sites": sites,
        "matrix": matrix,
        "overall": {model: overall(task, data, tested, measures) for model, measures in measured.items()},
        "gains": {},
        "over_pooled": None,
        "worst_site": _worst(task, matrix[FEDERATED]),
        "subgroups": _subgroups(task, tested, measured),
    }
    owners = [site for site in sites if OWN + site in measured]
    for site in owners:
        pair = [_rows(task, tested, measured[model], at[site]) for model in (FEDERATED, OWN + site)]
        value = _difference(*(matrix[model][site]["metrics"][task.headline] for model in (FEDERATED, OWN + site)))
        found["gains"][site] = {"patients": len(at[site]), **_with_interval(value, pair[0] - pair[1], len(at[site]))}
    if owners == sites:
        own = [measured[OWN + one.site][place] for place, one in enumerate(tested)]
        found["own"] = overall(task, data, tested, own)
    if POOLED in measured:
        pair = [_rows(task, tested, measured[model], everybody) for model in (FEDERATED, POOLED)]
        values = [found["overall"][model]["metrics"][task.headline]["value"] for model in (FEDERATED, POOLED)]
        value = None if None in values or not values[1] else values[0] / values[1]
        found["over_pooled"] = _with_interval(value, ratio(*pair), len(tested))
    return found


def overall(task: Task, data: DataConfig, tested: Sequence[Subject], measures: Measures) -> dict[str, Any]:
    """Each metric over all patients, pooled as the server pools sites, with its interval."""
    sites = [one.site for one in tested]
    of_sites = []
    for site in sorted(set(sites)):
        own = [values for values, where in zip(measures, sites, strict=True) if where == site]
        of_sites.append((task.summarise(own), len(own)))
    values = as_json(task.pool(of_sites, data)) or {}
    drawn = task.weighted(measures, sites, resamples(len(tested)))
    return {
        "patients": len(tested),
        "metrics": {name: _with_interval(values.get(name), rows, len(tested)) for name, rows in drawn.items()},
    }


def resamples(patients: int) -> Floats:
    """How often each patient is in each resample, (RESAMPLES, patients); for so many patients always the same."""
    rng = generator("bootstrap", "comparison")
    return rng.multinomial(patients, np.full(patients, 1 / patients), RESAMPLES).astype(np.float64)


def with_interval(value: Mapping[str, float | None], sign: str = "") -> str:
    """A figure with its 95 % interval, where it has one.

    >>> with_interval({"value": 0.8125, "low": 0.75, "high": 0.9})
    '0.812 [0.750, 0.900]'
    """
    ends = "" if value["low"] is None else f" [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
    return "-" if value["value"] is None else f"{value['value']:{sign}.3f}{ends}"


def verdict(gain: Mapping[str, Any], lower_is_better: bool) -> Literal["better", "worse", "open", "few"]:
    """What a gain says of the federated model; open: the interval holds 0; few: too few patients to say anything.

    >>> verdict({"patients": 6, "value": 0.2, "low": 0.1, "high": 0.3}, lower_is_better=False)
    'better'
    """
    low, high = gain["low"], gain["high"]
    if low is None or high is None or gain["patients"] < FEWEST:
        return "few"
    if low <= 0 <= high:
        return "open"
    return "better" if (low > 0) != lower_is_better else "worse"


def _of_site(task: Task, measures: Measures) -> dict[str, Any]:
    return {"patients": len(measures), "metrics": as_json(task.summarise(measures))}


def _rows(
    task: Task, tested: Sequence[Subject], measures: Measures, places: Sequence[int], ones: bool = False
) -> Floats:
    """The headline of the patients at these places, in each resample of them; with `ones` of themselves."""
    weights = np.ones((1, len(places))) if ones else resamples(len(places))
    sites = [tested[place].site for place in places]
    return task.weighted([measures[place] for place in places], sites, weights)[task.headline]


def _with_interval(value: float | None, rows: Floats, patients: int) -> dict[str, float | None]:
    """A value with its interval; without one where fewer than two patients, or no resample, could have it."""
    ends = interval("end", rows) if patients > 1 and value is not None else {}
    known = {name: end for name, end in ends.items() if isfinite(end)}
    return {"value": value, "low": known.get("end_low"), "high": known.get("end_high")}


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _worst(task: Task, sites: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the federated model scores lowest, or highest where less is better; None where it has no score."""
    known = {site: value for site, one in sites.items() if (value := one["metrics"][task.headline]) is not None}
    if not known:
        return None
    worst = (max if task.lower_is_better else min)(known, key=known.__getitem__)
    return {"site": worst, "value": known[worst], "patients": sites[worst]["patients"]}


def _subgroups(task: Task, tested: Sequence[Subject], measured: Mapping[str, Measures]) -> dict[str, Any]:
    """The headline of each group that is not all patients."""
    found: dict[str, Any] = {}
    volumes = [one.volume for one in tested]
    kinds: dict[str, list[tuple[Any, str]]] = {
        "scanner": [(one.scanner is None, one.scanner or NOT_KNOWN) for one in tested],
        "grade": [(one.grade is None, one.grade or NOT_KNOWN) for one in tested],
        "tumour volume": list(zip([inf if each is None else each for each in volumes], thirds(volumes), strict=True)),
    }
    for by, keyed in kinds.items():  # (what its group is sorted by, the group) of each patient
        names = dict.fromkeys(name for _, name in sorted(keyed))
        groups = {name: [place for place, (_, group) in enumerate(keyed) if group == name] for name in names}
        if len(groups) > 1:
            found[by] = {name: _group(task, tested, measured, places) for name, places in groups.items()}
    return found


def _group(
    task: Task, tested: Sequence[Subject], measured: Mapping[str, Measures], places: Sequence[int]
) -> dict[str, Any]:
    models = {}
    for model, measures in measured.items():
        value = float(_rows(task, tested, measures, places, ones=True)[0])
        rows = _rows(task, tested, measures, places)
        models[model] = _with_interval(value if isfinite(value) else None, rows, len(places))
    return {"patients": len(places), "models": models}


def thirds(volumes: Sequence[float | None]) -> list[str]:
    """The third of the patients that each is in by tumour volume (cm3), named by its edges.

    >>> thirds([1.0, 20.0, None, 10.0])
    ['up to 7 cm3', '13.3 cm3 and above', 'not known', '7 to 13.3 cm3']
    """
    low, high = np.quantile([each for each in volumes if each is not None] or [0.0], (1 / 3, 2 / 3))
    names = (f"up to {low:.3g} cm3", f"{low:.3g} to {high:.3g} cm3", f"{high:.3g} cm3 and above")
    return [NOT_KNOWN if each is None else names[int(each >= low) + int(each >= high)] for each in volumes]
