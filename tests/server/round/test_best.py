"""Which round is the best: the sites' median has it, and no single site."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import tensor

from gliofed.server.round.best import best_round, keep_best, validation_score
from gliofed.server.round.history import History, site_line
from gliofed.server.round.state import State
from gliofed.shared.config import RunConfig
from gliofed.shared.run_folder import RunFolder
from gliofed.shared.tasks import TASKS
from gliofed.shared.tasks.segmentation import Segmentation

DICE = TASKS["segmentation"]


class Distance(Segmentation):
    """The same with a metric that is better when it is lower."""

    headline, lower_is_better = "hd95", True


def event(values: dict[str, tuple[float | None, int]], metric: str = "dice", **lines: dict[str, Any]) -> dict[str, Any]:
    """A round of sites with a value of the metric and a number of patients each."""
    measured = {
        site: site_line(status="counted", evaluate={metric: value}, evaluated=patients)
        for site, (value, patients) in values.items()
    }
    return {"event": "round", "round": 1, "sites": measured | lines}


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ({"a": (0.5, 10)}, 0.5),
        ({"a": (0.5, 9)}, None),  # too few patients
        ({"a": (0.5, 5), "b": (0.7, 5)}, 0.5),  # of two the worse, whoever has more patients
        ({"a": (0.5, 5), "b": (0.7, 500)}, 0.5),
        ({"a": (0.5, 5), "b": (0.7, 5), "c": (0.8, 5)}, 0.7),
        ({"a": (0.5, 5), "b": (0.7, 5), "c": (0.8, 5), "d": (0.9, 5)}, 0.7),  # the lower median
        ({"a": (0.5, 20), "b": (0.7, 12), "c": (0.8, 12)}, 0.7),
        ({"a": (0.5, 30), "b": (0.7, 10), "c": (0.8, 30)}, 0.7),
        ({"a": (0.5, 10), "b": (0.6, 10), "c": (1.0, 10_000)}, 0.6),  # whoever claims all the patients
        ({"a": (0.0, 10_000), "b": (0.6, 10), "c": (0.7, 10)}, 0.6),  # in the other direction, too
        ({"a": (None, 10), "b": (0.6, 10)}, 0.6),
        ({}, None),
    ],
)
def test_the_score_of_a_round_is_a_median_that_nobody_sets_alone(values: Any, score: float | None) -> None:
    found = validation_score(event(values), DICE)
    assert (found and found[0]) == score


def test_where_lower_is_better_two_sites_have_the_higher() -> None:
    assert validation_score(event({"a": (3.0, 9), "b": (7.0, 9)}, "hd95"), Distance()) == (7.0, 18)


def test_who_did_not_count_has_no_say() -> None:
    refused = site_line(status="refused", evaluate={"dice": 1.0}, evaluated=50)
    withheld = site_line(status="counted")
    assert validation_score(event({"a": (0.5, 10)}, b=refused, c=withheld), DICE) == (0.5, 10)


@pytest.fixture
def keep(run_config: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., tuple[int | None, float | None]]:
    """Offer a round with these values to best/; the round that is there now, and its weight."""
    files = RunFolder(tmp_path)

    def offer(round: int, *values: float, config: RunConfig | None = None) -> tuple[int | None, float | None]:
        sites = {f"s{number}": (value, 10) for number, value in enumerate(values)}
        state = State(round=round, weights={"w": tensor([float(round)])})
        keep_best(files, config or run_config(), "run", state, event(sites))
        if best_round(files) is None:
            return None, None
        description = json.loads((files.best / "model.json").read_text())
        return best_round(files), description["validation"]["dice"]

    return offer


def test_the_first_of_the_best_rounds_stays(keep: Callable[..., Any]) -> None:
    assert keep(1, 0.5, 0.5, 0.5) == (1, 0.5)
    assert keep(2, 0.4, 0.4, 0.9) == (1, 0.5)
    assert keep(3, 0.6, 0.7, 0.8) == (3, 0.7)
    assert keep(4, 0.7, 0.7, 0.9) == (3, 0.7)
    assert keep(4) == (3, 0.7)  # a round that nobody measured


def test_whoever_goes_back_to_an_older_round_loses_a_later_best_one(keep: Callable[..., Any]) -> None:
    """Its weights are not among those of the rounds that follow."""
    assert keep(5, 0.9) == (5, 0.9)
    assert keep(5, 0.8) == (5, 0.8)  # the same round again, of a server that was killed
    assert keep(3, 0.4) == (3, 0.4)
    assert keep(3) == (None, None)  # and this time nobody measured it


def test_a_run_that_an_earlier_version_began_has_no_best_model_of_a_worse_round(
    keep: Callable[..., Any], tmp_path: Path
) -> None:
    """That version kept no best/: the weights of its best round are gone, and those of a later one are not the best."""
    for number, value in ((1, 0.5), (2, 0.8)):
        History(RunFolder(tmp_path).history).append(event({"a": (value, 10)}) | {"round": number})
    assert keep(3, 0.7) == (None, None)
    assert keep(3, 0.8) == (None, None)  # of equal rounds the first is the best
    assert keep(4, 0.9) == (4, 0.9)
    assert keep(3, 0.7) == (None, None)  # back at an older checkpoint, whose best round was given up for round 4
    assert keep(3, 0.85) == (3, 0.85)


def test_half_a_folder_is_no_best_round(keep: Callable[..., Any], tmp_path: Path) -> None:
    """A killed process of an earlier version may have left it."""
    assert keep(1, 0.5) == (1, 0.5)
    (tmp_path / "best/model.safetensors").unlink()
    assert best_round(RunFolder(tmp_path)) is None
    assert keep(2, 0.4) == (2, 0.4)
    (tmp_path / "best/model.json").unlink()
    assert best_round(RunFolder(tmp_path)) is None


def test_sites_with_tensors_of_their_own_have_no_best_round(
    keep: Callable[..., Any], run_config: Callable[..., RunConfig]
) -> None:
    """They keep those of their last round; with another round's they would be a model that nobody measured."""
    run = run_config()
    assert keep(1, 0.5, config=replace(run, algorithm=replace(run.algorithm, name="fedbn"))) == (None, None)
