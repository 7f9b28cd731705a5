"""gliofed-client predict, as a hospital meets it: a run's model on a folder of scans."""

import csv
import json
import shutil
import sys
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
import torch
from found_cohort import found_cohort
from numpy.testing import assert_array_equal
from small_run import as_given

from gliofed.client.cli import main
from gliofed.client.prediction.predict import load
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import DataConfig, ModelConfig
from gliofed.shared.data.labels import regions_of
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.samples import whole
from gliofed.shared.exported import find_export, read_export
from gliofed.shared.models import build_model
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks.grading import GRADE
from gliofed.shared.tasks.segmentation import Segmentation
from gliofed.simulation.phantom import PhantomConfig, write_phantoms
from gliofed.simulation.simulate import simulate

CPU = torch.device("cpu")
NAMES = ["BraTS20_Training_001-000-seg.nii.gz", "BraTS20_Training_002-000-seg.nii.gz"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("cases")
    write_phantoms(PhantomConfig(patients=2, resolution=8.0), root, 0)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cases):
    """The folder of a run that trained a U-Net on the cases; its name is such as sweeps give."""
    out = tmp_path_factory.mktemp("runs") / "0-model=unet,seed=1"
    words = ("data=folder", f"data.root={cases}", "data.labels=brats2020", "sites=1", "rounds=1", "data.spacing=null")
    small = (
        "model=unet",
        "model.preset=demo",
        "train.steps=2",
        "train.lr=1e-4",
        "data.patch=[16,16,16]",
        "round.join=1",
    )
    simulate(as_given(*words, *small) | {"out": str(out)})
    return out


def export(folder, name, data, task="segmentation", **options):
    """A model/ folder with the first weights of a model."""
    config = ModelConfig(name=name, preset="demo", **options)
    torch.manual_seed(0)
    network = build_model(config, len(data.modalities), len(data.regions) if task == "segmentation" else 1)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights_to_bytes(travelling(network)))
    facts = {"task": task, "model": asdict(config), "data": asdict(data), "run_id": "r", "round": 3}
    (folder / "model.json").write_text(json.dumps(facts))
    return network.eval()


def settings(**changes):
    data = {"modalities": ("flair", "t1", "t1ce", "t2"), "regions": ("et", "tc", "wt"), "window": 1, "spacing": None}
    return DataConfig(**data | {"patch": (16, 16, 16), "validation": 0.0, "split_seed": 0} | changes)


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "predict", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_a_run_predicts_a_folder(trained, cases, out, monkeypatch, capsys):
    """The whole way; the masks are what evaluation makes of the same scans, in windows that slide."""
    assert command(monkeypatch, f"model={trained}", f"data.root={cases}", "data.labels=brats2023", f"out={out}") == 0
    printed = capsys.readouterr()
    assert "2 of 2 cases predicted; masks in" in printed.out
    assert printed.err.splitlines()[0] == f"BraTS20_Training_001-000: {NAMES[0]}"
    assert sorted(path.name for path in out.iterdir()) == [*NAMES, "predict.json"]
    exported = read_export(find_export(trained), {})
    network = load(trained / "model", exported, CPU).network
    site = SiteConfig(name="a", root=str(cases), labels="brats2020", work=str(out.parent / "work"))
    for patient in found_cohort(site, exported.data, "visits").train:
        scan, mask = (
            nib.load(path)
            for path in (cases / patient.name / f"{patient.name}_flair.nii.gz", out / f"{patient.name}-000-seg.nii.gz")
        )
        assert_array_equal(mask.affine, scan.affine)
        assert mask.shape == scan.shape and mask.get_data_dtype() == np.uint8
        regions = regions_of(np.asanyarray(nib.as_closest_canonical(mask).dataobj), "brats2023", ["wt"])
        assert regions.any(), "two short steps of training predict tumour nearly everywhere"
        [batch] = whole(patient, exported.data, "visits")
        expected = (Segmentation().logits(network, batch.inputs, exported.data) > 0).any(dim=1)
        assert regions.sum() == (expected & (batch.image != 0).any(dim=1)).sum() < expected.sum()  # in the brain alone
    assert json.loads((out / "predict.json").read_text())["round"] == 1


def test_what_cannot_be_read_is_named_and_the_others_are_predicted(trained, cases, tmp_path, out, monkeypatch, capsys):
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    scan = root / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz"
    scan.write_bytes(scan.read_bytes()[:-100])
    assert command(monkeypatch, f"model={trained}", f"data.root={root}", "data.labels=brats2020", f"out={out}") == 1
    printed = capsys.readouterr()
    assert "1 of 2 cases predicted" in printed.out
    assert f"{scan}: not a whole NIfTI file" in printed.err.splitlines()[-1]
    assert (out / NAMES[1]).exists() and not (out / NAMES[0]).exists()


def test_what_no_case_has_is_named(trained, cases, tmp_path, out, monkeypatch, capsys):
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    (root / "BraTS20_Training_001").rename(root / "renamed")
    assert command(monkeypatch, f"model={trained}", f"data.root={root}", "data.labels=brats2020", f"out={out}") == 1
    printed = capsys.readouterr()
    assert "1 of 1 case predicted; not understood: 1 folder" in printed.out
    assert "renamed" in json.loads((out / "predict.json").read_text())["not_understood"][0]
    assert printed.err.startswith(f"not understood: {root / 'renamed'}: BraTS20_Training_001_flair.nii.gz")


def test_the_folder_of_one_case(cases, tmp_path):
    """What a physician has at hand is one patient's folder, without a mask, beside other things."""
    folder = tmp_path / "BraTS20_Training_001"
    shutil.copytree(cases / folder.name, folder)
    (tmp_path / "BraTS-GLI-00001-000").mkdir()
    (tmp_path / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-t1n.nii.gz").touch()
    [case] = find_cases(folder, "brats2020")
    assert case.patient == folder.name
    assert {scan.path.parent for scan in case.images.values()} == {folder}


def test_a_grader_of_earlier_versions_is_refused(tmp_path):
    """It had GroupNorm in its blocks; what a new one makes of its other weights would be no grade."""
    folder = tmp_path / "model"
    network = export(folder, "cnn_lstm", settings(), "grading", encoder="cnn3")
    weights = travelling(network)
    weights["encoder.blocks.0.1.bias"] = weights.pop("encoder.blocks.0.0.bias")
    weights["encoder.blocks.0.1.weight"] = torch.ones(8)
    (folder / "model.safetensors").write_bytes(weights_to_bytes(weights))
    with pytest.raises(ConfigError, match=r"do(es)? not fit the model.*or take the version of gliofed that wrote them"):
        load(folder, read_export(folder), CPU)


def test_grades(cases, tmp_path, out, monkeypatch, capsys):
    """The probability is the sigmoid that evaluation sees; a modality that is missing is left out there as well."""
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    next(root.glob("*_001/*_t1.nii.gz")).unlink()
    data = settings()
    network = export(tmp_path / "model", "cnn_lstm", data, "grading")
    assert command(monkeypatch, f"model={tmp_path}", f"data.root={root}", f"out={out}") == 0
    with (out / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["patient", "visit", "grade", "probability_hgg", "modalities"]
    assert [row["modalities"] for row in rows] == ["flair t1ce t2", "flair t1 t1ce t2"]
    site = SiteConfig(name="a", root=str(root), labels="brats2020", work=str(tmp_path / "work"))
    for row, patient in zip(rows, found_cohort(site, data, GRADE).train, strict=True):
        [batch] = whole(patient, data, GRADE)
        with torch.no_grad():
            probability = network(*batch.inputs).sigmoid().item()
        assert (row["patient"], row["probability_hgg"]) == (patient.name, f"{probability:.4f}")
        assert row["grade"] == ("HGG" if probability > 0.5 else "LGG")


def test_a_series_is_predicted_by_its_model(tmp_path, out, monkeypatch, capsys):
    """Fewer visits than a window has will do: training needs whole windows, a patient needs a mask."""
    root = tmp_path / "cases"
    write_phantoms(PhantomConfig(patients=1, visits=3, resolution=8.0), root, 0)
    export(tmp_path / "model", "clstm_unet3d", settings(window=5))
    words = (f"model={tmp_path}", f"data.root={root}", "data.labels=brats2023", f"out={out}")
    assert command(monkeypatch, *words) == 0
    assert len(list(out.glob("BraTS-GLI-00001-00?-seg.nii.gz"))) == 3


def test_iterations_may_be_changed_after_training(tmp_path):
    export(tmp_path / "model", "lstm_unet", settings(), iterations=2)
    exported = read_export(tmp_path / "model", {"iterations": 5, "stop_when_stable": True})
    network = load(tmp_path / "model", exported, CPU).network
    assert (network.iterations, network.stop_when_stable) == (5, True)
    assert load(tmp_path / "model", read_export(tmp_path / "model", {"iterations": None}), CPU).network.iterations == 2


def test_weights_that_are_not_this_models(tmp_path):
    """A pickle is never opened: it could do anything."""
    folder = tmp_path / "model"
    export(folder, "unet", settings())
    export(tmp_path / "other", "unet", settings(modalities=("t1",)))
    exported = read_export(folder, {})
    (folder / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(
        ConfigError, match=r"model.safetensors: .* is \(8, 1, 3, 3, 3\), in the model \(8, 4, 3, 3, 3\)"
    ):
        load(folder, exported, CPU)
    torch.save({"weight": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="are not safetensors"):
        load(folder, exported, CPU)
    (folder / "model.json").write_text("{")
    with pytest.raises(ConfigError, match=r"model.json: not JSON"):
        read_export(folder, {})


WRONG = {
    "no model": (("model=none",), "none: no model.json and model.safetensors there"),
    "model missing": (("model=???",), "model: must be given"),
    "no root": (("data.root=none",), "none: no such folder"),
    "a key": (("data.rot=x",), "rot"),
    "a group": (("data=5",), "must be the name"),
    "no scheme": (("data.labels=null",), "data.labels: must be given"),
    "unknown scheme": (("data.labels=zzz",), "labels=zzz: no such label scheme"),
    "scheme without the regions": (("data.labels=mock",), "data.labels=mock: has no et, tc, wt"),
    "device": (("device=cuda:77",), "device=cuda:77: this machine has"),
    "option of another model": (("model.iterations=4",), "model.iterations=4: unet has"),
    "too many iterations": (("model.iterations=99",), "model.iterations=99: "),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use(what, trained, cases, out, monkeypatch, capsys):
    words, sentence = WRONG[what]
    given = [f"model={trained}", f"data.root={cases}", "data.labels=brats2020", f"out={out}", *words]
    assert command(monkeypatch, *given) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert sentence in line
    assert not out.exists()


def test_results_of_another_run_are_not_mixed_up(trained, cases, out, monkeypatch, capsys):
    out.mkdir()
    (out / "mine.nii.gz").touch()
    assert command(monkeypatch, f"model={trained}", f"data.root={cases}", "data.labels=brats2020", f"out={out}") == 2
    assert "is there and not empty" in capsys.readouterr().err
