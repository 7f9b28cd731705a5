"""A bootstrap weighs patients; a whole weight is that patient so many times, as `summarise` and `pool` have it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from small_run import composed

from gliofed.shared.tasks import TASKS, Task
from gliofed.simulation.settings import parse_settings

SITES = ["a", "b", "a", "b", "b", "a", "c"]
DICE = [{"loss": 1 - dice, "dice": dice, "hd95": 10 * dice} for dice in (0.1, 0.5, 0.25, 0.9, 0.4, 0.8, 0.7)]
CHANGED = [
    {**each, **({} if place in (2, 3, 6) else {"dice_change": each["dice"] / 2})} for place, each in enumerate(DICE)
]
GRADED = [
    {"loss": abs(score), "score": score, "grade": grade}
    for score, grade in ((-1.0, 0.0), (2.0, 1.0), (0.5, 1.0), (0.5, 0.0), (2.0, 0.0), (0.5, 0.0), (-0.1, 1.0))
]
WEIGHTS = np.array([[1, 1, 1, 1, 1, 1, 1], [2, 0, 3, 1, 1, 0, 2], [0, 0, 1, 4, 2, 1, 0]], dtype=np.float64)


def pooled(task: Task, patients: Sequence[Mapping[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """The oracle: every patient is there as often as its weight says."""
    of_sites = []
    for site in sorted(set(SITES)):
        there = [
            patient
            for patient, where, weight in zip(patients, SITES, weights, strict=True)
            for _ in range(int(weight) * (where == site))
        ]
        of_sites.append((task.summarise(there), len(there)))
    return task.pool(of_sites, parse_settings(composed())[0].data)


@pytest.mark.parametrize(("name", "patients"), [("segmentation", DICE), ("segmentation", CHANGED), ("grading", GRADED)])
@pytest.mark.parametrize("broken", [False, True])
def test_a_weight_is_the_patient_so_often(name: str, patients: list[dict[str, float]], broken: bool) -> None:
    """With a model that is broken at one site, too: its site does not enter. Some, and all of c, lack change."""
    if broken:
        patients = [*patients[:-1], {**patients[-1], "loss": math.nan, [*patients[-1]][1]: math.inf}]
    found = TASKS[name].weighted(patients, SITES, WEIGHTS)
    for row, weights in enumerate(WEIGHTS):
        expected = pooled(TASKS[name], patients, weights)
        for metric, values in found.items():
            assert values[row] == pytest.approx(expected.get(metric, math.nan), nan_ok=True), (metric, row)
    assert {"dice", "hd95"} <= found.keys() if name == "segmentation" else {"accuracy", "auc", "f1"} <= found.keys()
