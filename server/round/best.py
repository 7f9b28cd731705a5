"""The best round so far, as the sites' validation has it; no single site chooses it."""

import json
import math
from collections.abc import Mapping
from shutil import rmtree
from typing import Any

from gliofed.server.report.sentences import rests
from gliofed.server.round.fold import ENOUGH, limit_shares
from gliofed.server.round.history import Event, History
from gliofed.server.round.model import export_model
from gliofed.server.round.state import State
from gliofed.shared.algorithms import kept_of
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.config import RunConfig
from gliofed.shared.run_folder import ModelFolder, RunFolder
from gliofed.shared.tasks import TASKS, Task

FEWEST = 10
"""Validation patients of a round; among fewer, the best round is mostly chance."""
MOST = 0.49
"""Largest share of one site's weight, from three sites on: below one half, so that the median lies among the others."""


def validation_score(event: Mapping[str, Any], task: Task) -> tuple[float, int] | None:
    """The median over sites of the task's headline metric in one round, weighted by validation patients, whose number
    is returned as well; None where fewer than FEWEST patients were measured.

    It is the lower median: at least half of the weight is at sites with this value or a better one. Two sites weigh the
    same, so it is the worse of theirs. So a site that claims a perfect value moves the median to its honest neighbour.

    >>> line = {"status": "counted", "reason": None}
    >>> sites = {"a": (0.6, 40), "b": (0.7, 5), "c": (1.0, 400)}
    >>> lines = {site: line | {"evaluate": {"dice": dice}, "evaluated": n} for site, (dice, n) in sites.items()}
    >>> validation_score({"sites": lines}, TASKS["segmentation"])
    (0.7, 445)
    """
    measured = []
    for line in event["sites"].values():
        value = (line["evaluate"] or {}).get(task.headline)
        if value is not None and math.isfinite(value) and line["evaluated"] and _counts(line):
            measured.append((float(value), int(line["evaluated"])))
    patients = sum(number for _, number in measured)
    if patients < FEWEST:
        return None
    worst_first = sorted(measured, reverse=task.lower_is_better)
    weights = limit_shares([number if len(measured) >= ENOUGH else 1.0 for _, number in worst_first], MOST)
    passed, half = 0.0, sum(weights) / 2
    for (value, _), weight in zip(worst_first, weights, strict=True):
        passed += weight
        if passed >= half:
            return value, patients
    raise AssertionError("the weights reach half of their sum")


def keep_best(files: RunFolder, config: RunConfig, run_id: str, state: State, event: Event) -> None:
    """Write the model of the round of this `event` as `best/`, where it is better than the one that is there.

    Of equal rounds the first stays. Whoever went back to an older checkpoint loses a best round that came after it:
    its weights are not those of the rounds that follow. Where the weights of the best round are gone, as in a run that
    an earlier version began, there is no best model until a round is better than all before it. Where sites have
    tensors of their own there is none at all: they keep those of their last round alone.
    """
    task, score, known = TASKS[config.task], validation_score(event, TASKS[config.task]), best_round(files)
    if files.best.exists() and (known is None or known >= state.round):
        rmtree(files.best)
    if score is None or HOME in kept_of(config):
        return
    value, patients = score
    if any(
        value >= before if task.lower_is_better else value <= before for before in _before(files, state.round, task)
    ):
        return
    export_model(files, files.best, config, run_id, state, {"validation": {task.headline: value, "patients": patients}})


def best_round(files: RunFolder) -> int | None:
    """The round whose model is `best/`; None where there is none."""
    both = (ModelFolder(files.best).description, ModelFolder(files.best).weights)
    return int(_description(files)["round"]) if all(file.is_file() for file in both) else None


def _before(files: RunFolder, round: int, task: Task) -> list[float]:
    """The score of the best round so far, or of each round before this one where that is not there."""
    if best_round(files) is not None:
        return [float(_description(files)["validation"][task.headline])]
    rounds = [event for event in History(files.history).rounds() if event["round"] < round]
    return [score[0] for event in rounds if (score := validation_score(event, task))]


def _description(files: RunFolder) -> dict[str, Any]:
    return dict(json.loads(ModelFolder(files.best).description.read_text()))


def _counts(line: Mapping[str, Any]) -> bool:
    return line["status"] == "counted" or rests(line)
