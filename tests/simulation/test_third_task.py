"""A task is one object: a third one, the age of a patient, needs a line in TASKS, one in MODELS, and no other file."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.torch import load_file
from small_run import as_given
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from gliofed.client.doctor.check_command import check
from gliofed.client.prediction.predict_command import predict_command
from gliofed.server.report_command import report
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.volume import DataError
from gliofed.shared.hydra_words import composed
from gliofed.shared.models import MODELS
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.site_config import PolicyConfig
from gliofed.shared.tasks import TASKS, Label, Task
from gliofed.shared.tasks.means import LOSS, out_of_range
from gliofed.simulation.simulate import simulate

AGES = {f"P{number}": 20.0 + 5 * number for number in range(8)}


class Age(Task):
    """Years, by least squares."""

    headline, lower_is_better = "mae", True
    label = Label("age", lambda logit: (f"{logit.item():.1f}",), columns=("age",), reading="age")

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return mse_loss(logits, target)

    def measure(self, model, volumes, data, device):
        [batch] = volumes
        error = model(*batch.inputs) - batch.target
        return {"loss": error.square().item(), "mae": error.abs().item()}

    def impossible(self, metrics, patients, data):
        return out_of_range(metrics, {"loss": LOSS, "mae": (0.0, 150.0)})


class Brightness(nn.Module):
    """A line through the mean of the block."""

    series, task = False, "age"

    def __init__(self, in_channels: int, out_channels: int, widths: object) -> None:
        super().__init__()
        self.line = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        return self.line(x.mean((2, 3, 4)))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "age", Age())
    monkeypatch.setitem(MODELS, "brightness", Brightness)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight patients without masks, of whom the last has no age."""
    root, rng = tmp_path / "scans", np.random.default_rng(0)
    root.mkdir()
    rows = ["patient,t1,age"]
    for name, age in AGES.items():
        nib.save(nib.Nifti1Image(rng.integers(1, 900, (8, 8, 8)).astype(np.int16), np.eye(4)), root / f"{name}.nii.gz")
        rows.append(f"{name},{name}.nii.gz,{age if name != 'P7' else ''}")
    (root / "cases.csv").write_text("\n".join(rows))
    return root


def predicted(weights: dict[str, Tensor], scan: Path) -> float:
    """The oracle: the line through the mean of the scan between its minimum and its maximum, in fp16 as the cache."""
    voxels = nib.load(scan).get_fdata().astype(np.float32)
    scaled = ((voxels - voxels.min()) / (voxels.max() - voxels.min() + 1e-8)).astype(np.float16)
    return float(weights["line.weight"][0, 0] * scaled.astype(np.float64).mean() + weights["line.bias"][0])


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Path:
    words = (
        "data=folder", f"data.root={root}", "data.labels=brats2020", "data.modalities=[t1]", "data.spacing=null",
        "data.patch=[8,8,8]", "data.validation=0.5", "model=unet", "model.name=brightness", "task=age", "sites=2",
        "rounds=1", "train.steps=3", "train.lr=0.1", "device=cpu", "at_once=1", f"out={tmp_path / 'run'}",
    )  # fmt: skip
    outcome = simulate(as_given(*words))
    assert (outcome.status, outcome.metric) == ("done", "mae")
    return outcome.out


def test_it_trains_is_pooled_and_is_in_the_report(run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (event,) = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()][1:-1]
    weights = load_file(run / "model" / "model.safetensors")
    dealt = json.loads((run / "cohorts.json").read_text())["cohorts"]
    assert sorted(name for names in dealt for name in names) == [*AGES][:-1]  # who has no age is not dealt
    counts = [(line["patients"], line["evaluated"]) for line in event["sites"].values()]
    assert sum(map(sum, counts)) == 7 and all(min(count) > 0 for count in counts)
    errors = {name: abs(predicted(weights, root / f"{name}.nii.gz") - AGES[name]) for name in AGES}
    site_errors = [line["evaluate"]["mae"] for line in event["sites"].values()]
    pooled = sum(error * count[1] for error, count in zip(site_errors, counts, strict=True)) / sum(n for _, n in counts)
    assert event["global"]["mae"] == pytest.approx(pooled)
    assert min(errors.values()) <= pooled <= max(errors.values())
    capsys.readouterr()
    report([run], None, False, plots=False, page=False)
    told = capsys.readouterr().out
    assert "Mae on validation patients" in told and f"{pooled:.3f}" in told


def test_predict_writes_its_number(run: Path, root: Path, tmp_path: Path) -> None:
    assert predict_command([f"model={run}", f"data.root={root}", f"out={tmp_path / 'out'}", "device=cpu"]) == 0
    with (tmp_path / "out" / "ages.csv").open() as file:
        rows = list(csv.DictReader(file))
    weights = load_file(run / "model" / "model.safetensors")
    assert [row["patient"] for row in rows] == [*AGES] and {row["modalities"] for row in rows} == {"t1"}
    for row in rows:
        assert float(row["age"]) == pytest.approx(predicted(weights, root / f"{row['patient']}.nii.gz"), abs=0.06)


def test_a_check_misses_the_age_and_reads_no_mask(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.root={root}", "data.labels=brats2020", "data.modalities=[t1]", "task=age", "workers=1"]
    assert check(composed("check", [*words, f"out={tmp_path / 'out'}"], {})) == 1
    assert "8 cases, 1 with errors" in (said := capsys.readouterr().out)
    assert "error: no_label: P7: no age; add the patient to the table of ages, or leave the patient out" in said


@pytest.mark.parametrize("age", ["old", "nan"])
def test_a_column_that_a_task_declares_is_checked(root: Path, age: str) -> None:
    (root / "cases.csv").write_text(f"patient,t1,age\nP0,P0.nii.gz,{age}\n")
    with pytest.raises(DataError, match=f"row 2, column age: '{age}' is not a value; use a number"):
        find_cases(root, "brats2020")


def test_no_other_column_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TASKS, "age")
    with pytest.raises(DataError, match="column age: holds no files"):
        find_cases(root, "brats2020")


def test_names_come_from_the_dict() -> None:
    assert parse(PolicyConfig, {"tasks": ["age"]}).tasks == ("age",)
    for wrong in ("years", 5, ["age"]):
        with pytest.raises(ConfigError, match="must be 'segmentation', 'grading' or 'age'"):
            parse(PolicyConfig, {"tasks": [wrong]})


@pytest.mark.slow
def test_tasks_are_known_without_pytorch() -> None:
    """Check and start answer at once; PyTorch takes seconds, and memory that a small machine keeps for training."""
    code = """
import importlib, sys
for name in ("doctor.check_command", "link.preflight", "link.supernode"):
    importlib.import_module(f"gliofed.client.{name}")
    from gliofed.shared.tasks import TASKS
    assert "torch" not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)
