"""What is predicted comes back in the space and the labels of the scans; the oracle is in `grey_masks`."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from grey_masks import Compare, balls, config, picture, predictor, run, save, thresholds
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.testing import assert_array_equal
from torch import nn

from gliofed.client.prediction.predict import case_name, predict, write_mask
from gliofed.shared.data.cases import Case
from gliofed.shared.data.volume import DataError, Scan


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def oblique(degrees):
    """Axes to the back, head and left, turned around the first: an MR scanner's sagittal series."""
    angle = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return turn @ np.array([[0, 0, -1.0], [-1, 0, 0], [0, 1, 0]])


PLACES = {
    "LPS": (np.diag([-1.0, -1, 1]), (1, 1)),
    "RAS": (np.eye(3), (0, 2)),
    "permuted": (oblique(0), (1, 0)),
    "oblique": (oblique(20), (1, 1)),
    "no place": (np.diag([-1.0, 1, 1]), (0, 0)),  # an affine is invented; the mask's must be the same
}


@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
@pytest.mark.parametrize("place", PLACES)
def test_the_mask_comes_back_voxel_for_voxel(place, end, tmp_path, out):
    """In the file's own axes, whatever they are, so that it overlays in a viewer without any header magic."""
    (axes, codes), shape, spacing = PLACES[place], (26, 24, 22), (1.0, 1.25, 1.5)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, (17, -40.5, 3)
    labels = balls(shape, spacing)
    path = tmp_path / "cases" / "P1" / f"P1_t1{end}"
    save(path, picture(labels), affine, codes)
    outcome = run(Compare(thresholds(picture(labels))), config(), tmp_path / "cases", out)
    assert list(outcome.predicted) == ["P1-000"] and not outcome.faults
    scan, mask = nib.load(path), nib.load(out / "P1-000-seg.nii.gz")
    assert_array_equal(np.asanyarray(mask.dataobj), labels)
    assert mask.get_data_dtype() == np.uint8
    assert_array_equal(mask.affine, scan.affine)
    for key in ("qform_code", "sform_code", "pixdim", "xyzt_units"):
        assert_array_equal(mask.header[key], scan.header[key])
    gzip.decompress((out / "P1-000-seg.nii.gz").read_bytes())  # to its checksum


@pytest.mark.parametrize("target", [1.0, 2.0, (2.0, 1.0, 1.5)])
def test_resampling_there_and_back(target, tmp_path, out):
    """Thick slices are the rule in hospitals, and models are trained at one spacing."""
    spacing = (1.0, 1.0, 2.5)
    labels = balls((34, 37, 16), spacing)
    save(tmp_path / "cases" / "P1" / "P1_t1.nii.gz", picture(labels), np.diag([-1.0, -1, 2.5, 1]))
    run(Compare(thresholds(picture(labels))), config(spacing=target), tmp_path / "cases", out)
    mask = np.asanyarray(nib.load(out / "P1-000-seg.nii.gz").dataobj)
    assert mask.shape == labels.shape and set(np.unique(mask)) == {0, 1, 2, 4}
    assert dice(mask > 0, labels > 0) > 0.9
    # Between ET and brain lie all grey values, so the core alone is not asked for; where it is must be right.
    assert dice(np.isin(mask, (1, 4)), np.isin(labels, (1, 4))) > 0.85


def test_nothing_is_marked_where_every_image_is_zero(tmp_path, out):
    """Whatever the model says of it: here, that all is tumour. One image that is not zero is enough."""
    folder, image, other = tmp_path / "cases" / "P1", np.zeros((20, 20, 20), np.int16), np.zeros((20, 20, 20), np.int16)
    image[4:-4, 4:-4, 4:-4], other[3:-8, 4:-4, 4:-4] = 7, 9
    image[5], other[6] = 8, 8  # no constant image
    save(folder / "P1_t1.nii.gz", image, np.eye(4))
    save(folder / "P1_t2.nii.gz", other, np.eye(4))
    run(Compare([-99.0] * 3), config(modalities=("t1", "t2")), tmp_path / "cases", out)
    mask = np.asanyarray(nib.load(out / "P1-000-seg.nii.gz").dataobj)
    assert_array_equal(mask != 0, (image != 0) | (other != 0))


def test_windows_that_slide_give_the_same(tmp_path, out):
    labels = balls((30, 26, 24), (1, 1, 1))
    save(tmp_path / "cases" / "P1" / "P1_t1.nii.gz", picture(labels), np.eye(4))
    run(Compare(thresholds(picture(labels))), config(patch=(12, 12, 12)), tmp_path / "cases", out)
    assert_array_equal(np.asanyarray(nib.load(out / "P1-000-seg.nii.gz").dataobj), labels)


def test_a_copy_with_a_number_in_its_name_is_predicted(tmp_path, out):
    """As browsers name a second download; by its name nibabel would not know what it is."""
    labels = balls((26, 24, 22), (1, 1, 1))
    save(tmp_path / "cases" / "P1" / "P1_t1.nii.gz", picture(labels), np.eye(4))
    (tmp_path / "cases" / "P1" / "P1_t1.nii.gz").rename(tmp_path / "cases" / "P1" / "P1_t1.nii (1).gz")
    run(Compare(thresholds(picture(labels))), config(), tmp_path / "cases", out)
    assert_array_equal(np.asanyarray(nib.load(out / "P1-000-seg.nii.gz").dataobj), labels)


def test_the_first_modality_gives_the_axes(tmp_path, out):
    """Scans of a case may lie the same and be stored differently."""
    labels = balls((26, 24, 22), (1, 1, 1))
    affine, folder = np.diag([1.0, 1, 1, 1]), tmp_path / "cases" / "P1"
    save(folder / "P1_t2.nii.gz", picture(labels), affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LIP"))
    turned = nib.Nifti1Image(picture(labels), affine).as_reoriented(turn)
    save(folder / "P1_t1.nii.gz", np.asanyarray(turned.dataobj), turned.affine)
    run(Compare(thresholds(picture(labels))), config(modalities=("t1", "t2")), tmp_path / "cases", out)
    mask = nib.load(out / "P1-000-seg.nii.gz")
    assert_array_equal(mask.affine, turned.affine)
    assert_array_equal(np.asanyarray(mask.dataobj), apply_orientation(labels, turn))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_mask_beside_a_4d_file(kind, tmp_path):
    """MSD keeps modalities in one file; its mask has three axes, and none of its texts, which may name a patient."""
    affine, labels = np.diag([1.0, 1, 3, 1]), balls((4, 5, 6), (1, 1, 1))
    image = kind(np.zeros((4, 5, 6, 2), np.float32), affine)
    image.header["descrip"] = b"SMITH^JOHN"
    nib.save(image, tmp_path / "four.nii.gz")
    write_mask(labels, Scan(tmp_path / "four.nii.gz", 1), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert type(mask) is kind
    assert mask.shape == (4, 5, 6) and mask.header["descrip"] == b""
    assert_array_equal(mask.affine, affine)


def series(root):
    """A patient with three visits, whose tumour moves."""
    moved = [balls((26, 24, 22), (1, 1, 1), (place, 0.5, 0.5)) for place in (0.4, 0.5, 0.6)]
    for visit, labels in enumerate(moved):
        save(root / f"P1-00{visit}" / f"P1-00{visit}-t1n.nii.gz", picture(labels), np.eye(4))
    return moved


def test_every_visit_of_a_series(tmp_path, out):
    """Windows of two: the third visit is read alone, as in evaluation."""
    moved = series(tmp_path / "cases")
    network = Compare(thresholds(picture(moved[0])), most_visits=2)
    outcome = run(network, config(window=2), tmp_path / "cases", out, "clstm_unet3d")
    assert list(outcome.predicted) == ["P1-000", "P1-001", "P1-002"]
    for visit, labels in enumerate(moved):
        assert_array_equal(np.asanyarray(nib.load(out / f"P1-00{visit}-seg.nii.gz").dataobj), labels)


def test_a_damaged_visit_is_left_out_of_a_series(tmp_path, out):
    moved = series(tmp_path / "cases")
    path = tmp_path / "cases" / "P1-001" / "P1-001-t1n.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    network = Compare(thresholds(picture(moved[0])), most_visits=2)
    outcome = run(network, config(window=2), tmp_path / "cases", out, "clstm_unet3d")
    assert list(outcome.predicted) == ["P1-000", "P1-002"]
    assert list(outcome.faults) == ["P1-001"] and str(path) in outcome.faults["P1-001"]
    assert_array_equal(np.asanyarray(nib.load(out / "P1-002-seg.nii.gz").dataobj), moved[2])


class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_said(error, tmp_path, out):
    save(tmp_path / "cases" / "P1" / "P1_t1.nii.gz", picture(balls((26, 24, 22), (1, 1, 1))), np.eye(4))
    outcome = run(Fails(error), config(), tmp_path / "cases", out)
    assert outcome.faults["P1-000"].startswith("out of memory on cpu; take a machine with more memory")
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run(Fails(RuntimeError("a bug of ours")), config(), tmp_path / "cases", out)


@pytest.mark.parametrize("task", ["segmentation", "grading"])
def test_what_is_said_to_have_failed_is_not_written(task, tmp_path, out, monkeypatch):
    """The images were looked at once the mask was written: too little memory for that ended a good prediction."""

    class HGG(nn.Module):
        def forward(self, image, present):
            return torch.ones(1)

    def look(*_):
        raise MemoryError

    monkeypatch.setattr("gliofed.client.prediction.predict.look", look)  # nothing that is put in makes it raise this
    save(tmp_path / "cases" / "P1" / "P1_t1.nii.gz", picture(balls((26, 24, 22), (1, 1, 1))), np.eye(4))
    network, name = (Compare([0.0] * 3), "unet") if task == "segmentation" else (HGG(), "cnn_lstm")
    outcome = run(network, config(), tmp_path / "cases", out, name, task=task)
    assert outcome.faults["P1-000"].startswith("out of memory") and not outcome.predicted
    assert not list(out.glob("*.nii.gz"))
    assert all(len(file.read_text().splitlines()) == 1 for file in out.glob("*.csv"))  # the head alone


def test_a_model_that_diverged_writes_no_empty_mask(tmp_path, out):
    save(tmp_path / "cases" / "P1" / "P1_t1.nii.gz", picture(balls((26, 24, 22), (1, 1, 1))), np.eye(4))
    outcome = run(Compare([float("nan")] * 3), config(), tmp_path / "cases", out)
    assert "NaN" in outcome.faults["P1-000"] and not list(out.glob("*.nii.gz"))


def test_names_lead_nowhere_else_and_are_different(tmp_path, out):
    """A table may name a patient anything."""
    path = tmp_path / "t1.nii.gz"
    labels = balls((26, 24, 22), (1, 1, 1))
    save(path, picture(labels), np.eye(4))
    one, other = (Case(name, "1", {"t1": Scan(path)}, None, None, "brats2020") for name in ("../a b", ".._a/b"))
    ready = predictor(Compare(thresholds(picture(labels))), config())
    predict(ready, [one], "brats2020", out, lambda line: None)
    assert [file.name for file in out.iterdir()] == [".._a_b-1-seg.nii.gz"]
    with pytest.raises(DataError, match="two cases have this name"):
        predict(ready, [one, other], "brats2020", out, lambda line: None)


def test_a_name_too_long_for_a_file_is_shortened() -> None:
    """Else one patient's name would end the prediction of all; two that begin alike stay two."""
    names = {case_name(Case("x" * 300 + end, "000", {}, None, None, "")) for end in "ab"}
    assert len(names) == 2 and all(len(name) < 200 for name in names)


def head(shape, brain):
    """Background 0 and a brain of a third of the volume; or noise everywhere, as a head that nobody stripped."""
    grid = np.indices(shape).astype(float)
    away = np.sqrt(sum(((axis - size / 2) / size) ** 2 for axis, size in zip(grid, shape, strict=True)))
    noise = np.random.default_rng(0).normal(300, 40, shape)
    return np.where(away < 0.4, noise, 0 if brain else noise / 9 + 1).astype(np.float32)


@pytest.mark.parametrize(("brain", "codes"), [(True, []), (False, ["not_skull_stripped"])])
def test_images_are_looked_at_as_a_check_does(brain, codes, tmp_path, out):
    """Without a mask; a mask beside them, however wrong, is not read."""
    folder = tmp_path / "cases" / "P1"
    save(folder / "P1_t1.nii.gz", head((50, 60, 50), brain), np.diag([3.0, 3, 3, 1]))
    (folder / "P1_seg.nii.gz").write_bytes(b"no mask")
    outcome = run(Compare([0.0] * 3), config(), tmp_path / "cases", out)
    assert list(outcome.predicted) == ["P1-000"]
    assert [found.code for found in outcome.predicted.get("P1-000", [])] == codes
