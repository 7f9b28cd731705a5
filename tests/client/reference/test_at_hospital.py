"""A hospital's own reference, against the one that a simulation trains of the same site."""

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from forks import OnCall, end_of, started
from rich.console import Console
from small_federation import status
from small_run import composed

from gliofed.client.cli import main
from gliofed.client.doctor.manifest import read_manifest
from gliofed.client.link.compare_command import compare_command, sentences, table
from gliofed.client.link.site_file import read_site
from gliofed.client.reference.scoring import write_scores
from gliofed.client.round.withdraw import withdraw
from gliofed.shared.comparison import Subject
from gliofed.shared.config import as_values
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

WORDS = ("data.patients=[14,4]", "sites=2", "data.test=0.4", "baselines=[local]", "train.augment.noise=0.1")
"""The second site's hash gives it no test patient."""
NAMES = ("local site-1", "federated")
OF_SITE_1 = [(name, "site-1") for name in NAMES]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "run"
    assert simulate(composed(*WORDS, f"out={out}")).status == "done"
    return out


def hospital(out: Path, folder: Path, name: str = "site-1") -> Path:
    """A hospital with a site's name and scans, and with a copy of its work folder."""
    shutil.copytree(out / "sites" / name, folder / "work")
    settings = {"name": name, "root": str(out / "data" / name), "labels": "mock", "device": "cpu", "work": "work"}
    (folder / "site.yaml").write_text(yaml.safe_dump(settings))
    return folder


def results(folder: Path) -> Path:
    [found] = (folder / "work" / "compare").iterdir()
    return found


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "compare.json").read_text()))


def scores(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_is_the_reference_of_a_simulation(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes of weights, the same figures and the same interval; and nobody is named where it says so."""
    folder = hospital(out, tmp_path)
    before = (folder / "work" / "audit" / "audit.jsonl").read_bytes()
    assert status(monkeypatch, main, "compare", out, folder) == 0
    said = " ".join(capsys.readouterr().out.split())
    found, simulated = read(results(folder)), json.loads((out / "comparison.json").read_text())
    weights = "local-site-1/model.safetensors"
    assert (results(folder) / weights).read_bytes() == (out / "baselines" / weights).read_bytes()
    for model in NAMES:
        assert found["matrix"][model]["site-1"] == simulated["matrix"][model]["site-1"]
    gain = found["gains"]["site-1"]
    assert gain == simulated["gains"]["site-1"] and gain["low"] is not None
    assert found["models"]["local site-1"]["samples"] == simulated["models"]["local site-1"]["samples"]
    assert f"federated minus own: {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" in said
    assert "whatever the interval, the difference may be chance" in said and "Nothing was sent" in said
    rows = scores(results(folder))
    assert rows == [row for row in scores(out / "baselines") if (row["model"], row["site"]) in OF_SITE_1]
    patients = {row["patient"] for row in rows}
    assert len(patients) == gain["patients"] > 1
    text = (results(folder) / "compare.json").read_text() + (results(folder) / "of.json").read_text()
    assert not [name for name in patients if name in text]
    assert (folder / "work" / "audit" / "audit.jsonl").read_bytes() == before


@pytest.mark.slow
def test_tensors_at_home_are_the_sites_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With FedBN each site has norms of its own; with them it was measured at the end of the run."""
    out = tmp_path / "run"
    assert simulate(composed(*WORDS, "algorithm=fedbn", f"out={out}")).status == "done"
    folder = hospital(out, tmp_path / "hospital")
    assert status(monkeypatch, main, "compare", out, folder) == 0
    simulated = json.loads((out / "comparison.json").read_text())
    for model in NAMES:
        assert read(results(folder))["matrix"][model]["site-1"] == simulated["matrix"][model]["site-1"]


@pytest.mark.slow
def test_killed_and_started_again_is_the_same(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the first round was saved, the same command goes on and leaves the same bytes, but for seconds."""
    folder = hospital(out, tmp_path)

    def main_in(folder: Path) -> None:
        status(monkeypatch, main, "compare", out, folder)

    at = OnCall("gliofed.client.reference.training", "save_checkpoint", 1, after=True)
    assert end_of(started(compare_command, out, folder, None, None, None, killed=at)) == -signal.SIGKILL
    assert (results(folder) / "local-site-1" / "checkpoints").is_dir() and not (results(folder) / "scores.csv").exists()
    main_in(folder)
    weights = "local-site-1/model.safetensors"
    assert (results(folder) / weights).read_bytes() == (out / "baselines" / weights).read_bytes()
    first = {name: (results(folder) / name).read_bytes() for name in ("compare.json", "scores.csv", weights)}
    main_in(folder)  # what is done is not done again, so that even the seconds are the same
    assert {name: (results(folder) / name).read_bytes() for name in first} == first


def test_a_grade_is_the_patients_and_not_what_the_task_measures(tmp_path: Path) -> None:
    """Grading measures a grade as well, 0 or 1, which stood in a second column of that name and in the first one."""
    write_scores(tmp_path / "scores.csv", [Subject("a", "P1", None, "HGG", 1.5)], {"federated": [{"grade": 1.0}]})
    columns = "model,site,patient,scanner,grade,tumour_cm3"
    assert (tmp_path / "scores.csv").read_text().split() == [columns, "federated,a,P1,,HGG,1.5"]


def test_a_patient_who_withdraws_is_in_none(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained or scored with them is removed, and a comparison after that has one patient less."""
    folder = hospital(out, tmp_path)
    assert status(monkeypatch, main, "compare", out, folder) == 0
    who = scores(results(folder))[0]["patient"]
    tested = read(results(folder))["gains"]["site-1"]["patients"]
    done = withdraw(read_site(folder), who)
    assert folder / "work" / "compare" in done.reports and done.left == []
    assert not (folder / "work" / "compare").exists()
    assert status(monkeypatch, main, "compare", out, folder) == 0
    assert read(results(folder))["gains"]["site-1"]["patients"] == tested - 1
    assert who not in (results(folder) / "scores.csv").read_text()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: model.pop("run"), "lacks the run's settings, which a reference needs; ask the aggregator"),
        (
            lambda model: [part["data"].pop("test") for part in (model, model["run"])],
            "its run set no test patients aside",
        ),
        (lambda model: model["run"]["data"].update(patch=[16, 16, 16]), "run has another task, model or data than"),
        (lambda model: model["run"].update(task="grading"), "run has another task, model or data than"),
        (lambda model: model.update(round=0), "is of round 0; give --rounds from 1 to 2"),
        (lambda model: model["run"].update(later=1), "run.later: no such key; copy it again from the run, or take"),
    ],
)
def test_a_model_that_cannot_be_compared(
    out: Path, tmp_path: Path, change: Any, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """One of an earlier version, one of a run without a test, and some whose description cannot be."""
    folder, model = hospital(out, tmp_path / "hospital"), tmp_path / "model"
    shutil.copytree(out / "model", model)
    description = json.loads((model / "model.json").read_text())
    change(description)
    (model / "model.json").write_text(json.dumps(description))
    assert status(monkeypatch, main, "compare", model, folder) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_what_differs_from_the_run_is_said(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a private run that was given its weights, at a site whose memory had not sufficed."""
    folder, model = hospital(out, tmp_path / "hospital"), tmp_path / "model"
    shutil.copytree(out / "model", model)
    description = json.loads((model / "model.json").read_text())
    private = as_values(parse_settings(composed(*WORDS[:-2], "baselines=[]", "privacy=dp_sgd"))[0])
    description["run"] = private | {"init": "0" * 64}
    (model / "model.json").write_text(json.dumps(description))
    smaller = {"run_id": description["run_id"], "patch": [8, 8, 4]}
    (folder / "work" / "smaller_patch.json").write_text(json.dumps(smaller))
    assert status(monkeypatch, main, "compare", model, folder) == 0
    said = capsys.readouterr().out
    assert "WITHOUT privacy" in said and "began with given weights" in said and "the smaller patch" in said
    weights = results(folder) / "local-site-1/model.safetensors"
    assert weights.read_bytes() != (out / "baselines/local-site-1/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere", "site"], "MODEL=nowhere: no model.json"),
        (["run", "nowhere"], "no site.yaml there"),
        (["run", "site", "--rounds", "3"], "--rounds 3; give --rounds from 1 to 2"),
        (["run", "site", "--rounds", "0"], "--rounds 0; give --rounds from 1 to 2"),
        (["run", "site", "--device", "gpu"], "device=gpu: must be auto, cpu"),
        (["run", "site", "--out", "site"], "is there and not empty"),
        (["run", "site", "--out", "run"], "is there and not empty"),  # which has a lock of the same name
        (["run", "site", "--out", "site/site.yaml"], "site/site.yaml: File exists; give a folder that can be written"),
        (["run", "untested"], "none of the patients who can be used is for testing"),
        (["run", "new"], "has no frozen cohort yet"),
    ],
)
def test_wrong_use_is_a_sentence(
    out: Path, tmp_path: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(out)
    hospital(out, tmp_path / "site")
    hospital(out, tmp_path / "untested", "site-2")
    shutil.rmtree(hospital(out, tmp_path / "new") / "work")
    assert status(monkeypatch, main, "compare", *words) == 2
    said = capsys.readouterr().err
    assert sentence in said.replace(f"{tmp_path}/", "") and said.count("\n") == 1


def test_a_folder_holds_one_comparison(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or a reference of one round would go on as that of another question."""
    folder, into = hospital(out, tmp_path / "hospital"), tmp_path / "results"
    assert status(monkeypatch, main, "compare", out, folder, "--out", into, "--rounds", "1") == 0
    assert read(into)["models"]["local site-1"]["steps"] == 2
    assert status(monkeypatch, main, "compare", out, folder, "--out", into) == 2
    assert "holds a comparison of other data, rounds or settings" in capsys.readouterr().err


def test_a_damaged_reference_is_named(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hospital(out, tmp_path)
    assert status(monkeypatch, main, "compare", out, folder) == 0
    (results(folder) / "local-site-1/training.json").write_text("{")
    assert status(monkeypatch, main, "compare", out, folder) == 2
    assert "local-site-1: damaged; remove this folder, and it is trained anew" in capsys.readouterr().err


def found(value: float | None, low: float | None, high: float | None, number: int, **more: Any) -> dict[str, Any]:
    gains = {"a": {"patients": number, "value": value, "low": low, "high": high}}
    about = {"site": "a", "metric": "dice", "lower_is_better": False, "given_weights": False, "smaller_patch": False}
    return about | {"gains": gains, "models": {"federated": {"private": False}}} | more


@pytest.mark.parametrize(
    ("what", "last"),
    [
        (found(0.2, 0.1, 0.3, 6), "the federated model is better here than the hospital's own"),
        (found(0.2, 0.1, 0.3, 6, lower_is_better=True), "the hospital's own model is better here"),
        (found(-0.2, -0.3, -0.1, 6), "the hospital's own model is better here than the federated one"),
        (found(-0.2, -0.3, -0.1, 6, lower_is_better=True), "the federated model is better here"),
        (found(0.2, -0.1, 0.3, 6), "the interval holds 0"),
        (found(0.2, 0.1, 0.3, 5), "fewer than 6 test patients"),
        (found(0.2, None, None, 1), "fewer than 6 test patients"),
        (found(None, None, None, 9), "so they cannot be compared"),
        (found(0.2, 0.1, 0.3, 6, models={"federated": {"private": True}}), "trained WITHOUT privacy"),
        (found(0.2, 0.1, 0.3, 6, given_weights=True), "began with given weights"),
        (found(0.2, 0.1, 0.3, 6, smaller_patch=True), "the smaller patch"),
    ],
)
def test_what_is_said_of_a_gain(what: dict[str, Any], last: str) -> None:
    said = sentences(what)
    assert last in said[-1] and "n=" in said[0]


def test_each_metric_has_its_name_in_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The three regions of a metric were all called precision..., in 40 columns."""
    names = ["dice", "precision_et", "precision_tc"]
    one = {"patients": 6, "metrics": {name: {"value": 0.123, "low": 0.012, "high": 0.234} for name in names}}
    models = {"federated": {"round": 2}, "local a": {"round": 2}}
    overall = {"site": "a", "metric": "dice", "models": models, "overall": dict.fromkeys(models, one)}
    Console(width=40).print(table(overall))
    said = capsys.readouterr().out
    assert all(name in said for name in names) and "[0.012," in said


def test_the_cohort_is_that_of_the_run(out: Path, tmp_path: Path) -> None:
    """The copy of a site's work folder is a frozen cohort, or the tests above would freeze another one."""
    assert read_manifest(hospital(out, tmp_path) / "work") is not None
