"""Who is tested is in no batch of training or validation, and is measured once, by the last and the best model."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_federation import model_of, rounds_of, sites_of
from small_run import composed

from gliofed.client.doctor.manifest import admit
from gliofed.server.report.table import results_table
from gliofed.server.round.history import History
from gliofed.shared.codec import load_weights, weights_from_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data import samples
from gliofed.shared.data.dataset import Cohort, Patient, open_cohort
from gliofed.shared.data.samples import whole
from gliofed.shared.parse import ConfigError
from gliofed.shared.tasks import TASKS, reading_of
from gliofed.shared.tasks import model_of as build
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]
PARTS = ("data.patients=12", "data.validation=0.4", "data.test=0.3")
"""Of three sites: 12 or more patients validate."""


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A run of three sites with a test."""
    out = tmp_path_factory.mktemp("tested") / "run"
    values = composed("sites=3", "rounds=3", *PARTS, f"out={out}")
    assert simulate(values).status == "done"
    return values, out


def cohorts(values: dict[str, Any], out: Path) -> tuple[RunConfig, dict[str, Cohort]]:
    run, _ = parse_settings(values)
    sites = sites_of(values, run, out)
    admitted = {site.name: (site, admit(site, run.data, run.task).cases) for site in sites}
    return run, {name: open_cohort(site, run.data, reading_of(run), cases) for name, (site, cases) in admitted.items()}


def test_the_test_is_what_measuring_each_patient_by_hand_gives(tested: tuple[dict[str, Any], Path]) -> None:
    values, out = tested
    run, found = cohorts(values, out)
    [test] = [event for event in events_of(out) if event["event"] == "test"]
    weights = {"last": out / "model/model.safetensors", "best": out / "best/model.safetensors"}
    assert test["best_round"] == json.loads((out / "best/model.json").read_text())["round"]
    assert set(test["models"]) == {"last"} | ({"best"} if test["best_round"] != 3 else set())
    task = TASKS[run.task]
    for name, measured in test["models"].items():
        model = build(run)
        load_weights(model, weights_from_bytes(weights[name].read_bytes()))
        model.eval()
        everybody = []
        for site, cohort_ in found.items():
            each = [
                task.measure(model, whole(one, run.data, reading_of(run)), run.data, next(model.parameters()).device)
                for one in cohort_.test
            ]
            everybody += each
            line = measured["sites"][site]
            assert (line["evaluated"], line["evaluate"] or {}) == (len(each), task.summarise(each))
        assert len(everybody) > 3
        assert measured["global"]["dice"] == pytest.approx(np.mean([each["dice"] for each in everybody]))


def events_of(out: Path) -> list[dict[str, Any]]:
    return History(out / "history.jsonl").events()


def test_it_is_in_the_table(tested: tuple[dict[str, Any], Path]) -> None:
    from rich.console import Console

    console = Console(record=True, width=200)
    console.print(results_table(events_of(tested[1]), "dice"))
    [test] = [event for event in events_of(tested[1]) if event["event"] == "test"]
    assert f"{test['models']['last']['global']['dice']:.3f}" in console.export_text().split("test, last")[1]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet", "clstm_unet3d"])
def test_no_batch_of_training_or_validation_has_a_test_patient(
    values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Every read of a patient's prepared scans goes through one function: who was read before the test began?"""
    read: dict[str, set[Path]] = defaultdict(set)
    phase, opened = ["rounds"], samples.open_entry

    def note(entry: Path) -> Any:
        read[phase[0]].add(entry)
        return opened(entry)

    monkeypatch.setattr(samples, "open_entry", note)  # what training and evaluation read is seen nowhere else
    append = History.append

    def noted(self: History, event: dict[str, Any]) -> None:
        append(self, event)
        phase[0] = "test" if event.get("round") == 2 else phase[0]

    monkeypatch.setattr(History, "append", noted)
    given = values(f"model={model}", "data.window=2", "sites=2", *PARTS, f"out={tmp_path / 'run'}")
    simulate(given)
    _, found = cohorts(given, tmp_path / "run")

    def entries(patients: list[Patient]) -> set[Path]:
        return {entry for patient in patients for entry in patient.entries}

    test = set().union(*(entries(each.test) for each in found.values()))
    others = set().union(*(entries(each.train + each.validation) for each in found.values()))
    assert test and test == read["test"]
    assert read["rounds"] <= others and set().union(*(entries(each.validation) for each in found.values()))


@pytest.mark.slow
@pytest.mark.parametrize("round", [1, 2, 3])
def test_a_site_that_claims_perfect_metrics_in_one_round_does_not_choose_it(
    tested: tuple[dict[str, Any], Path], values: Values, tmp_path: Path, round: int
) -> None:
    honest = json.loads((tested[1] / "best/model.json").read_text())
    simulate(values("sites=3", "rounds=3", *PARTS, f"faults={{site-2:boast@{round}-{round}}}", f"out={tmp_path}/run"))
    claimed = rounds_of(tmp_path / "run")[round - 1]["sites"]["site-2"]
    assert (claimed["status"], claimed["evaluate"]["dice"]) == ("counted", 1.0)
    found = json.loads((tmp_path / "run/best/model.json").read_text())
    assert found["round"] == honest["round"]


@pytest.mark.slow
def test_without_it_nothing_is_asked_and_the_run_keeps_its_hash(values: Values, out: Path) -> None:
    run, _ = parse_settings(values("data.test=null"))
    assert "test" not in json.loads(run.as_json)["data"]
    simulate(values("sites=2", "rounds=1", f"out={out}"))
    assert {event["event"] for event in events_of(out)} == {"start", "round", "end"}
    assert model_of(out)


@pytest.mark.slow
def test_a_run_that_no_site_could_test_is_incomplete(
    values: Values, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gliofed.client.round import work

    measure = work._measure

    def broken(job: Any) -> Any:  # a site's own disk or memory, say, after the last round
        if job.request.part:
            raise MemoryError
        return measure(job)

    monkeypatch.setattr(work, "_measure", broken)
    outcome = simulate(values("sites=2", "rounds=1", *PARTS, f"out={out}"))
    assert outcome.status == "incomplete"
    assert "no site evaluated the model" in events_of(out)[-1]["reason"]
    assert events_of(out)[-2]["models"]["last"]["global"] is None


def test_too_little_is_left_to_train(values: Values) -> None:
    with pytest.raises(ConfigError, match=r"data.test=0.6 with data.validation=0.4: together they must be below 1"):
        parse_settings(values("data.validation=0.4", "data.test=0.6"))
