"""The comparison's figures: by hand, and against a slow bootstrap."""

import json
import math
from statistics import fmean

import numpy as np
import pytest
from small_run import composed

from gliofed.shared.comparison import Subject, compare, resamples
from gliofed.shared.tasks import TASKS
from gliofed.shared.tasks.segmentation import Segmentation
from gliofed.simulation.settings import parse_settings

DATA = parse_settings(composed())[0].data
TESTED = [
    Subject("site-1", "P1", "one", "HGG", 12.0),
    Subject("site-1", "P2", "one", "LGG", 30.0),
    Subject("site-2", "P3", "two", "HGG", None),
]
DICE = {
    "federated": (0.75, 0.5, 0.25),
    "pooled": (0.75, 1.0, 0.75),
    "local site-1": (0.5, 0.5, 0.0),
    "local site-2": (0.25, 0.5, 0.5),
}


def measures(dice: tuple[float, ...]) -> list[dict[str, float]]:
    return [{"loss": 1 - each, "dice": each} for each in dice]


MEASURED = {model: measures(dice) for model, dice in DICE.items()}


def test_by_hand() -> None:
    found = compare("segmentation", DATA, TESTED, MEASURED)
    assert (found["task"], found["metric"], found["lower_is_better"]) == ("segmentation", "dice", False)
    assert found["sites"] == ["site-1", "site-2"]
    assert found["matrix"]["federated"] == {
        "site-1": {"patients": 2, "metrics": {"loss": 0.375, "dice": 0.625}},
        "site-2": {"patients": 1, "metrics": {"loss": 0.75, "dice": 0.25}},
    }
    assert found["matrix"]["local site-2"]["site-1"]["metrics"]["dice"] == 0.375
    whole = found["overall"]["federated"]
    assert whole["patients"] == 3 and whole["metrics"]["dice"]["value"] == 0.5
    assert found["own"]["metrics"]["dice"]["value"] == 0.5  # of .5 and .5 at site-1, and .5 at site-2
    assert found["over_pooled"]["value"] == pytest.approx(0.5 / (2.5 / 3))
    assert found["gains"]["site-1"] == {"patients": 2, "value": 0.125, "low": 0.0, "high": 0.25}
    assert found["gains"]["site-2"] == {"patients": 1, "value": -0.25, "low": None, "high": None}
    assert found["worst_site"] == {"site": "site-2", "value": 0.25, "patients": 1}


def test_subgroups_by_hand() -> None:
    """One that is all patients is none; who has no volume is in a group of his own."""
    found = compare("segmentation", DATA, TESTED, MEASURED)["subgroups"]
    assert {by: {name: group["patients"] for name, group in groups.items()} for by, groups in found.items()} == {
        "scanner": {"one": 2, "two": 1},
        "grade": {"HGG": 2, "LGG": 1},
        "tumour volume": {"up to 18 cm3": 1, "24 cm3 and above": 1, "not known": 1},
    }
    assert found["grade"]["HGG"]["models"]["pooled"] == {"value": 0.75, "low": 0.75, "high": 0.75}
    assert found["scanner"]["two"]["models"]["federated"] == {"value": 0.25, "low": None, "high": None}
    alike = [Subject(one.site, one.patient, "one", None, None) for one in TESTED]
    assert compare("segmentation", DATA, alike, MEASURED)["subgroups"] == {}


def test_intervals_are_those_of_a_slow_bootstrap() -> None:
    """Each resample is written out as a list of patients, for one model and for pairs of models."""
    rng = np.random.default_rng(0)
    tested = [Subject(f"site-{1 + place % 2}", f"P{place}", None, None, None) for place in range(9)]
    dice = {model: tuple(rng.uniform(size=9)) for model in DICE}
    found = compare("segmentation", DATA, tested, {model: measures(each) for model, each in dice.items()})
    draws = [np.repeat(np.arange(9), row.astype(int)) for row in resamples(9)]
    assert len(draws) == 1000 and {len(draw) for draw in draws} == {9}
    assert len({place for draw in draws for place in draw.tolist()}) == 9
    assert fmean(fmean(draw.tolist()) for draw in draws) == pytest.approx(4.0, abs=0.1)  # nobody is preferred

    def ends(values: list[float]) -> dict[str, float]:
        low, high = np.percentile(values, [2.5, 97.5])
        return {"low": pytest.approx(low), "high": pytest.approx(high)}

    means = {model: [fmean(each[place] for place in draw) for draw in draws] for model, each in dice.items()}
    for model in DICE:
        whole = found["overall"][model]["metrics"]["dice"]
        assert whole == {"value": pytest.approx(fmean(dice[model])), **ends(means[model])}
    ratios = [first / second for first, second in zip(means["federated"], means["pooled"], strict=True)]
    assert {end: found["over_pooled"][end] for end in ("low", "high")} == ends(ratios)
    at = [0, 2, 4, 6, 8]  # of site-1
    own = [dice["federated"][place] - dice["local site-1"][place] for place in at]
    gains = [fmean(np.repeat(own, row.astype(int)).tolist()) for row in resamples(5)]
    assert found["gains"]["site-1"] == {"patients": 5, "value": pytest.approx(fmean(own)), **ends(gains)}


class Distance(Segmentation):
    headline, lower_is_better = "loss", True


def test_less_may_be_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "distance", Distance())
    found = compare("distance", DATA, TESTED, MEASURED)
    assert (found["metric"], found["lower_is_better"]) == ("loss", True)
    assert found["worst_site"] == {"site": "site-2", "value": 0.75, "patients": 1}
    assert found["gains"]["site-1"]["value"] == -0.125


def test_what_is_not_finite_is_null_and_json_takes_it() -> None:
    """A model that diverged has no figure, and no comparison with it has one either."""
    broken = MEASURED | {"pooled": measures((math.nan, math.nan, math.nan))}
    found = compare("segmentation", DATA, TESTED, broken)
    json.dumps(found, allow_nan=False)
    nothing = {"value": None, "low": None, "high": None}
    assert found["over_pooled"] == nothing and found["overall"]["pooled"]["metrics"]["dice"] == nothing
    assert found["matrix"]["pooled"]["site-1"]["metrics"] == {"loss": None, "dice": None}


def test_only_what_was_asked_for() -> None:
    found = compare("segmentation", DATA, TESTED, {"federated": MEASURED["federated"]})
    assert (found["gains"], found["over_pooled"]) == ({}, None) and "own" not in found
