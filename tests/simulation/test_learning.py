"""Every model learns what it is for, through the whole way: NIfTI, cache, rounds, evaluation.

Two sites on two cores, one thread each. `pytest --durations=0` shows the time; 120 s a model is what was asked.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from small_run import as_given

from gliofed.simulation.simulate import simulate

pytestmark = pytest.mark.slow

SIZE = (24, 24, 24)
PATIENTS = 128


def last_round(out: Path) -> dict[str, float]:
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    metrics: dict[str, float] = [event for event in events if event["event"] == "round"][-1]["global"]
    print(metrics)
    return metrics


@pytest.mark.parametrize(
    ("model", "budget"),
    [
        ("unet", ("rounds=5", "train.steps=25")),
        ("lstm_unet", ("rounds=5", "train.steps=25")),
        ("clstm_unet3d", ("rounds=4", "train.steps=8")),
    ],
)
def test_segmentation_is_learned_on_mock_volumes(model: str, budget: tuple[str, ...], tmp_path: Path) -> None:
    simulate(as_given(f"model={model}", "sites=2", *budget, f"out={tmp_path / 'out'}"))
    assert last_round(tmp_path / "out")["dice"] > 0.90


def draw(rng: np.random.Generator, high_grade: bool) -> tuple[list[NDArray[np.int16]], float]:
    """Four modalities with a ball in noise, and its radius: a rim in T1ce if HGG, solid if LGG.

    Radius, place and summed brightness have the same distribution in both grades.
    """
    radius = rng.uniform(5, 9)
    centre = [rng.uniform(radius, edge - radius) for edge in SIZE]
    places = np.meshgrid(*(np.arange(edge) for edge in SIZE), indexing="ij")
    distance = np.sqrt(sum((place - middle) ** 2 for place, middle in zip(places, centre, strict=True)))
    ball, rim = distance < radius, (distance < radius) & (distance > 0.7 * radius)
    share = 1.0 if not high_grade else rim.sum() / ball.sum()
    signal = rng.uniform(0.8, 1.2) * 120 / share
    enhanced = np.where(rim if high_grade else ball, signal, 0)
    scans = [300 + 40 * rng.standard_normal(SIZE) + part for part in (120 * ball, -60 * ball, enhanced, 80 * ball)]
    return [np.clip(np.rint(scan), 1, None).astype(np.int16) for scan in scans], radius


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("graded"), np.random.default_rng(0)
    rows, radii = ["Grade,BraTS_2020_subject_ID"], []
    for number in range(PATIENTS):
        name, high = f"Ball-{number:03d}", number % 2 == 0
        scans, radius = draw(rng, high)
        (root / name).mkdir()
        for modality, scan in zip(("flair", "t1", "t1ce", "t2"), scans, strict=True):
            nib.save(nib.Nifti1Image(scan, np.eye(4)), root / name / f"{name}_{modality}.nii.gz")
        rows.append(f"{'HGG' if high else 'LGG'},{name}")
        radii.append(radius)
    (root / "name_mapping.csv").write_text("\n".join(rows) + "\n")
    by_size = np.argsort(radii) % 2 == 0  # HGG or not, from the smallest ball to the largest
    right = [max(np.mean(by_size == guess), np.mean(by_size != guess)) for guess in np.tri(PATIENTS, dtype=bool)]
    assert max(right) < 0.7  # no threshold on the size tells the grade
    return root


@pytest.mark.parametrize("encoder", ["cnn1", "cnn2", "cnn3"])
def test_grading_is_learned(encoder: str, graded: Path, tmp_path: Path) -> None:
    words = (
        "model=cnn_lstm",
        f"model.encoder={encoder}",
        "data=folder",
        f"data.root={graded}",
        "data.labels=brats2020",
    )
    sizes = ("data.spacing=null", f"data.patch=[{SIZE[0]},{SIZE[1]},{SIZE[2]}]", "data.validation=0.3")
    budget = ("sites=2", "rounds=8", "train.steps=30", "train.batch=8", "train.lr=0.001", f"out={tmp_path / 'out'}")
    simulate(as_given(*words, *sizes, *budget))
    assert last_round(tmp_path / "out")["accuracy"] > 0.90
