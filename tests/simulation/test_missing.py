"""A site whose scanner makes no FLAIR: it trains with the others, and the model predicts such cases."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grey_masks import CPU
from plain_federation import model_of, rounds_of
from small_run import SMALL_GRADING_DATA
from torch.testing import assert_close

from gliofed.client.doctor.manifest import read_manifest
from gliofed.client.prediction.predict import load, predict
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.exported import read_export
from gliofed.shared.parse import ConfigError
from gliofed.simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]
LACKING = "lacking={site-2:[flair]}"
PATIENTS = 3


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "phantoms"


@pytest.fixture
def settings(phantoms: Path) -> Callable[..., dict[str, Any]]:
    """Two sites of phantoms at 8 mm, a second a run."""
    from small_run import as_given

    words = ("model=unet", *SMALL_GRADING_DATA, f"data.patients={PATIENTS}", "train.steps=2", "rounds=2", "sites=2")

    def make(*overrides: str) -> dict[str, Any]:
        return as_given(*words, f"data.root={phantoms}", "round.deadline=600", "round.join=1", *overrides)

    return make


def test_a_site_without_an_image_counts_and_its_files_of_it_mean_nothing(settings: Values, tmp_path: Path) -> None:
    """The other run has other files of FLAIR at that site, and the same model to the last bit."""
    models = []
    for name in ("one", "other"):
        out = tmp_path / name
        words = ("data.missing=mask", LACKING, f"data.root={tmp_path / 'data'}", f"out={out}")
        assert simulate(settings(*words)).status == "done"
        assert [line["status"] for event in rounds_of(out) for line in event["sites"].values()] == ["counted"] * 4
        models.append(model_of(out))
        images = {site: read_manifest(out / "sites" / site).entries[0].case.images for site in ("site-1", "site-2")}
        assert images["site-1"].keys() - images["site-2"].keys() == {"flair"}
        for scan in (tmp_path / "data" / "site-2").glob("*/*_flair.nii.gz"):
            scan.write_bytes(b"another image")
    assert_close(models[0], models[1], rtol=0, atol=0)
    assert models[0]["encoder.presence.weight"][:, 0].any() and not models[0]["encoder.presence.weight"][:, 1:].any()


def test_as_before_such_a_site_declines(settings: Values, out: Path) -> None:
    assert simulate(settings(LACKING, "rounds=1", f"out={out}")).status == "incomplete"
    (event,) = rounds_of(out)
    assert event["sites"]["site-1"]["status"] == "counted"
    assert "(left out: 3 missing_modality)" in event["sites"]["site-2"]["reason"]


def test_a_policy_may_ask_for_every_image(settings: Values, out: Path) -> None:
    policy = "policies={site-2:{complete:true}}"
    assert simulate(settings("data.missing=mask", LACKING, policy, "rounds=1", f"out={out}")).status == "incomplete"
    (event,) = rounds_of(out)
    assert "(left out: 3 missing_modality)" in event["sites"]["site-2"]["reason"]


@pytest.mark.slow
def test_a_run_that_is_resumed_keeps_what_a_site_lacks(settings: Values, out: Path) -> None:
    """The frozen cohort has it, whatever lies in the folder."""
    simulate(settings("data.missing=mask", LACKING, f"out={out}"))
    before = (out / "sites" / "site-2" / "cohort" / "manifest.json").read_bytes()
    assert simulate({**settings(), "resume": str(out)}).status == "done"
    assert (out / "sites" / "site-2" / "cohort" / "manifest.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["mask", "refuse"])
def test_a_case_is_predicted_where_the_model_was_trained_so(settings: Values, tmp_path: Path, missing: str) -> None:
    """And the warning says what it was predicted without."""
    out = tmp_path / "run"
    simulate(settings(f"data.missing={missing}", "rounds=1", "train.steps=1", f"out={out}"))
    exported = read_export(out / "model")
    assert exported.data.missing == missing
    cases = find_cases(Path(settings()["data"]["root"]) / "site-1", "brats2020")[:2]
    del cases[0].images["flair"]
    (tmp_path / "masks").mkdir()
    predictor = load(out / "model", exported, CPU)
    outcome = predict(predictor, cases, "brats2020", tmp_path / "masks", lambda line: None)
    names = [f"{case.patient}-000" for case in cases]
    if missing == "refuse":
        assert list(outcome.faults) == names[:1] and "no flair" in outcome.faults[names[0]]
    else:
        assert list(outcome.predicted) == names and len(list((tmp_path / "masks").iterdir())) == 2
        lacks = [
            [found.message for found in outcome.predicted[name] if found.code == "missing_modality"] for name in names
        ]
        assert lacks == [[f"{cases[0].patient} visit 000: no flair; has t1, t1ce, t2; it is used without"], []]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("lacking={site-9:[flair]}",), "lacking: site-9 is no site; they are site-1 to site-2"),
        (("lacking={site-2:[adc]}",), "lacking.site-2: adc is none of data.modalities=flair,t1,t1ce,t2"),
        (("lacking={site-2:[flair,t1,t1ce,t2]}",), "lacking.site-2=[flair,t1,t1ce,t2]: leaves its cases no image"),
        (("data.missing=zero",), "data.missing=zero"),
        (("data.missing=mask", "model=monai_dynunet"), "data.missing=mask: monai_dynunet cannot be told"),
    ],
)
def test_wrong_use(settings: Values, out: Path, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        simulate(settings(*words, f"out={out}"))
    assert sentence in str(refused.value)
    assert not out.exists()


def test_a_run_of_before_keeps_its_hash(run_config: Callable[..., Any]) -> None:
    assert "missing" not in json.loads(run_config().as_json)["data"]
    assert json.loads(run_config("data.missing=mask").as_json)["data"]["missing"] == "mask"
