"""Slices on the report: of which data they are drawn, and that they show the truth where it is."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import SMALL_GRADING, as_given, composed

from gliofed.simulation.simulate import Outcome, report, simulate

DATA = ("sites=2", "rounds=1", "data.patients=8", "data.validation=0.5")


def reported(out: Path, *words: str) -> Outcome:
    outcome = simulate(composed(*DATA, *words, f"out={out}"))
    report(outcome)
    return outcome


@pytest.mark.slow
def test_made_up_patients_are_shown_with_the_truth_outlined(tmp_path: Path) -> None:
    reported(tmp_path / "run")
    found = json.loads((tmp_path / "run/slices.json").read_text())
    assert found["note"].startswith("They are made up. Outlined: OBJECT green")
    assert [each["rank"] for each in found["slices"]] == ["Best", "Median", "Worst"]
    scores = [float(each["about"].rsplit(" ", 1)[1]) for each in found["slices"]]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[2]
    for each in found["slices"]:
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(each["png"]))))
        green = (pixels == (0, 200, 120)).all(axis=-1)
        assert 0 < green.mean() < 0.5
        assert each["png"] in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
def test_a_label_is_shown_with_its_truth(tmp_path: Path) -> None:
    outcome = simulate(as_given(*SMALL_GRADING, *DATA, f"out={tmp_path / 'run'}"))
    report(outcome)
    found = json.loads((tmp_path / "run/slices.json").read_text())
    assert "predicted grade" in found["slices"][0]["about"] and "true " in found["slices"][0]["about"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("report.slices=false",), ("report.page=false",)], ids=" ".join)
def test_none_where_none_are_wanted(tmp_path: Path, words: tuple[str, ...]) -> None:
    reported(tmp_path / "run", *words)
    assert not (tmp_path / "run/slices.json").exists()


@pytest.mark.slow
def test_a_users_own_scans_are_shown_only_when_asked_for(tmp_path: Path) -> None:
    """The scans of a made-up site stand for a user's folder."""
    simulate(composed(*DATA, f"out={tmp_path / 'made'}"))
    own = ("data=folder", f"data.root={tmp_path / 'made/data/site-1'}", "data.labels=mock", "sites=1", "model=unet")
    own += ("rounds=1", "data.modalities=[t1]", "data.regions=[object]", "data.patch=[8,8,8]", "data.validation=0.5")
    for name, more in (("quiet", ()), ("shown", ("report.slices=true",))):
        report(simulate(as_given(*own, "train.steps=1", *more, f"out={tmp_path / name}")))
    assert not (tmp_path / "quiet/slices.json").exists()
    assert "data:image" not in (tmp_path / "quiet/report.html").read_text()
    assert "They are YOUR OWN SCANS: this page shows patients." in (tmp_path / "shown/report.html").read_text()
