"""A run with its references, from the command's settings to comparison.json."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from forks import OnCall, end_of, started
from small_run import SMALL_GRADING, as_given, composed

from gliofed.server.report.page.page import make_page
from gliofed.server.report_command import report
from gliofed.shared.parse import ConfigError
from gliofed.simulation.simulate import FailedError, simulate

BOTH = ("baselines=[pooled,local]", "data.test=0.4", "at_once=2")
WORDS = ("data.patients=[8,4,9]", *BOTH)
"""The second site's hash gives it no test patient."""


def read(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The comparison, and the history."""
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return json.loads((out / "comparison.json").read_text()), events


def event(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [found] = [each for each in events if each["event"] == name]
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best round is not its last, which two of three sites spoil."""
    out = tmp_path_factory.mktemp("references") / "run"
    spoilt = ("train.lr=0.03", "faults={site-1:flip:5@3,site-3:flip:5@3}")
    words = (*spoilt, "data.validation=0.5", "rounds=3", "data.patients=[14,4,15]")
    assert simulate(composed(*WORDS, *words, f"out={out}")).status == "done"
    return out


def of_test(test: dict[str, Any], model: str) -> dict[str, Any]:
    """The matrix' row that a test event gives."""
    lines = test["models"][model]["sites"].items()
    return {s: {"patients": one["evaluated"], "metrics": one["evaluate"]} for s, one in lines if one["evaluated"]}


def test_the_federated_row_is_the_test_event(out: Path) -> None:
    """Exactly: the same weights on the same patients, by the same measures."""
    found, events = read(out)
    test = event(events, "test")
    rows = {"federated": "last"} | ({"best": "best"} if "best" in test["models"] else {})
    assert len(rows) == 2, "the settings should make another round the best"
    for row, model in rows.items():
        assert found["matrix"][row] == of_test(test, model) != {}
        values = {name: each["value"] for name, each in found["overall"][row]["metrics"].items()}
        assert values == test["models"][model]["global"]
        assert found["models"][row]["round"] == test["models"][model]["round"]


def test_every_model_is_there_with_its_samples(out: Path) -> None:
    """Three rounds of two steps of two samples a site."""
    found, _ = read(out)
    samples = {name: (model["samples"], model["steps"]) for name, model in found["models"].items()}
    best = found["models"]["best"]["round"]
    assert samples == {
        "federated": (36, 18),
        "best": (12 * best, 6 * best),
        "pooled": (36, 18),
        **{f"local site-{number}": (12, 6) for number in (1, 2, 3)},
    }
    assert found["models"].keys() == found["matrix"].keys() == found["overall"].keys()
    assert {model["private"] for model in found["models"].values()} == {False}
    assert found["untested"] == [site for site in ("site-1", "site-2", "site-3") if site not in found["sites"]]


def test_the_comparison_names_no_patient_and_the_scores_do(out: Path) -> None:
    found, _ = read(out)
    with (out / "baselines" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {row["patient"] for row in rows}
    assert len(names) == found["overall"]["pooled"]["patients"] > 2
    assert len(rows) == len(names) * len(found["models"])
    text = (out / "comparison.json").read_text()
    assert not [name for name in names if name in text] and str(out) not in text
    of_one = [float(row["dice"]) for row in rows if (row["model"], row["site"]) == ("pooled", "site-1")]
    assert found["matrix"]["pooled"]["site-1"]["metrics"]["dice"] == pytest.approx(sum(of_one) / len(of_one))
    assert all(float(row["tumour_cm3"]) > 0 for row in rows)


def test_a_model_can_be_used(out: Path) -> None:
    """It is as a run leaves its own."""
    from gliofed.shared.exported import find_export, read_export

    folder = find_export(out / "baselines" / "local-site-1")
    assert read_export(folder).model.name == "unet"


def test_the_report_has_it(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the run printed it, and on its page."""
    report([out], None, as_json=False, plots=False, page=False)
    said = capsys.readouterr().out
    assert "federated over pooled, dice:" in said and "each site's own" in said
    page = make_page(out)
    assert "of a model that was trained on all data at one place" in page and "site-1 alone" in page


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_and_resumed_is_the_same(tmp_path: Path, when: str) -> None:
    """Killed at the fourth saved round of a reference, and gone on with: the same bytes, but for the clock's."""
    words = (*WORDS, "rounds=2", "train.augment.noise=0.1", f"data.root={tmp_path / 'data'}")
    simulate(composed(*words, f"out={tmp_path / 'undisturbed'}"))
    at = OnCall("gliofed.client.reference.training", "save_checkpoint", 4, after=when == "after")
    values = composed(*words, f"out={tmp_path / 'killed'}")
    assert end_of(started(simulate, values, killed=at)) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "comparison.json").exists()
    assert simulate(composed(f"resume={tmp_path / 'killed'}")).status == "done"
    undisturbed, resumed = tmp_path / "undisturbed", tmp_path / "killed"
    files = sorted(path.relative_to(undisturbed) for path in (undisturbed / "baselines").rglob("*.safetensors"))
    assert len(files) == 4
    for file in (*files, "baselines/scores.csv"):
        assert (resumed / file).read_bytes() == (undisturbed / file).read_bytes(), file
    first, second = (
        found | {"models": {name: {**one, "seconds": 0} for name, one in found["models"].items()}}
        for found, _ in map(read, (undisturbed, resumed))
    )
    assert first == second


@pytest.mark.slow
def test_a_site_that_never_counted_has_no_part(tmp_path: Path) -> None:
    """What it would have added was not in the federation either."""
    words = (*WORDS, "faults={site-1:nan}", "rounds=1", f"out={tmp_path / 'run'}")
    assert simulate(composed(*words)).status == "incomplete"
    found, _ = read(tmp_path / "run")
    assert "site-1" not in found["sites"] and "local site-1" not in found["models"]
    assert found["models"]["pooled"]["samples"] == 8


@pytest.mark.slow
def test_where_sites_have_tensors_of_their_own_each_is_measured_with_its(tmp_path: Path) -> None:
    """With FedBN the federated model is another at each site, as in the test."""
    model = ("model.encoder=cnn3", "model.as_published=true", "algorithm=fedbn", "data.patients=[8,9]", "data.test=0.5")
    words = (*SMALL_GRADING, *BOTH, *model, f"out={tmp_path / 'run'}")
    assert simulate(as_given(*words)).status == "done"
    found, events = read(tmp_path / "run")
    assert found["matrix"]["federated"] == of_test(event(events, "test"), "last")
    assert len(found["sites"]) == 2 and found["metric"] == "accuracy"
    assert [*found["subgroups"]["scanner"]] == ["scanner 1", "scanner 2"]
    assert {*found["subgroups"]["grade"]} <= {"HGG", "LGG"} and len(found["subgroups"]["tumour volume"]) == 3


@pytest.mark.slow
def test_references_of_a_private_run_are_not_private(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*WORDS, "privacy=central", "privacy.epsilon=100", "rounds=1", f"out={tmp_path / 'run'}")
    simulate(composed(*words))
    found, _ = read(tmp_path / "run")
    assert {name for name, model in found["models"].items() if model["private"]} == {"federated"}
    assert "the references are trained without privacy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_cannot_be_compared_is_shown_all_the_same(tmp_path: Path) -> None:
    """Its page said that it had not ended, and it had no figures; the only site that counts has no test patient."""
    words = (*WORDS, "faults={site-1:nan,site-3:nan}", "rounds=1", "round.quorum=1", f"out={tmp_path / 'run'}")
    with pytest.raises(FailedError, match="no site that counted has a test patient"):
        simulate(composed(*words))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "not ended" not in page and '<span class="badge warn">incomplete</span>' in page
    assert [*(tmp_path / "run" / "plots").glob("*.png")]


def test_without_any_test_patient_nothing_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test=0: no site has a test patient.*give a larger one"):
        simulate(composed("baselines=[pooled]", "data.test=0", f"out={tmp_path / 'run'}"))
    assert not (tmp_path / "run" / "history.jsonl").exists()
