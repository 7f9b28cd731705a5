"""round.sample: some sites train in a round, all evaluate, and nobody is blamed for resting."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plain_federation import rounds_of
from rich.console import Console

from gliofed.server.report.sentences import reasons_of_run
from gliofed.server.report.table import patients_behind, results_table
from gliofed.server.round.history import History
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError
from gliofed.simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]
VALIDATION = {"site-1": 2, "site-2": 0, "site-3": 1}
"""Patients of each of three small sites; a hash of their ids chose them."""


def test_some_train_and_all_evaluate(values: Values, out: Path) -> None:
    assert simulate(values("sites=3", "rounds=3", "round.sample=0.5", f"out={out}")).status == "done"
    for event in rounds_of(out):
        counted = [site for site, line in event["sites"].items() if line["status"] == "counted"]
        resting = [line for line in event["sites"].values() if line["status"] == "not_invited"]
        assert (len(counted), len(resting)) == (2, 1)
        (line,) = resting
        assert line["reason"].startswith("not drawn this round")
        assert (line["train"], line["patients"], line["bytes_up"]) == (None, None, 0)
        evaluated = {site: line["evaluated"] for site, line in event["sites"].items()}
        assert evaluated == VALIDATION and event["global"] is not None
        assert patients_behind(event) == sum(VALIDATION.values())
    events = History(out / "history.jsonl").events()
    assert not [sentence for sentence in reasons_of_run(events) if "site-2" not in sentence], "chance is no fault"
    table = Console(record=True, width=200)
    table.print(results_table(events, "dice"))
    assert "not_invited" not in table.export_text()


@pytest.mark.slow
def test_who_was_never_drawn_is_tested_as_well(values: Values, out: Path) -> None:
    """As after each round, where it evaluates; who was drawn and refused has no say."""
    words = ("sites=4", "rounds=2", "round.sample=0.5", "data.patients=8", "data.validation=0.2", "data.test=0.3")
    simulate(values(*words, "train.steps=1", "faults={site-2:zero_patients}", f"out={out}"))
    [test] = [event for event in History(out / "history.jsonl").events() if event["event"] == "test"]
    statuses: dict[str, set[str]] = {}
    for event in rounds_of(out):
        for site, line in event["sites"].items():
            statuses.setdefault(site, set()).add(line["status"])
    assert {"not_invited"} in statuses.values() and "refused" in statuses["site-2"]
    assert set(test["models"]["last"]["sites"]) == {"site-1", "site-3", "site-4"}


@pytest.mark.slow
def test_one_site_that_is_drawn_alone_is_bounded_all_the_same(values: Values, out: Path) -> None:
    """It is no run of one site, which would be bounded by nothing."""
    words = ("sites=3", "rounds=2", "round.sample=0.1", "round.evaluate_every=0")
    hostile = "faults={site-1:scale,site-2:scale,site-3:scale}"
    assert simulate(values(*words, hostile, f"out={out}")).status == "done"
    lines = [line for event in rounds_of(out) for line in event["sites"].values() if line["status"] == "counted"]
    assert len(lines) == 2 and all(line["clipped"] < 0.1 for line in lines)


@pytest.mark.slow
def test_a_whole_sample_is_the_run_without_one(values: Values, tmp_path: Path) -> None:
    for name, words in {"plain": (), "all": ("round.sample=1",)}.items():
        simulate(values("sites=2", "rounds=1", "round.evaluate_every=0", *words, f"out={tmp_path / name}"))
    model = "model/model.safetensors"
    assert (tmp_path / "all" / model).read_bytes() == (tmp_path / "plain" / model).read_bytes()


def test_what_cannot_be_is_refused(run_config: Callable[..., RunConfig]) -> None:
    assert "sample" not in json.loads(run_config().as_json)["round"]
    assert run_config("round.sample=0.5").hash != run_config().hash
    with pytest.raises(ConfigError, match=r"round\.sample with privacy=central"):
        run_config("round.sample=0.5", "privacy=central", "sites=4", "round.expected=[site-1,site-2]")
    with pytest.raises(ConfigError, match=r"round\.quorum=3 with round\.sample=0\.5: more sites than it draws"):
        run_config("round.sample=0.5", "sites=4", "round.quorum=3", "round.expected=[site-1,site-2,site-3,site-4]")
    with pytest.raises(ConfigError, match=r"round\.sample=0"):
        run_config("round.sample=0")
