"""Reading one NIfTI, and labels -> regions."""

import gzip
import pickle

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from shared.data.labels import LABELS, regions_of
from shared.data.volume import DataError, Scan, read_volume

ANATOMY = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


def write(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def read(path):
    return read_volume(Scan(path))


def fault(function, *args):
    with pytest.raises(DataError) as caught:
        function(*args)
    return caught.value


def test_an_lps_file_reads_as_the_ras_one(tmp_path):
    """BraTS is LPS: index 0 lies at the patient's right and front, so the same head is stored with x and y reversed."""
    ras = np.diag([1.0, 2.0, 3.0, 1.0])
    lps = np.diag([-1.0, -2.0, 3.0, 1.0])
    lps[:2, 3] = [4.0, 10.0]  # the last voxel's place in mm: (5 - 1) * 1 and (6 - 1) * 2
    one = read(write(tmp_path / "ras.nii.gz", ANATOMY, ras))
    other = read(write(tmp_path / "lps.nii", ANATOMY[::-1, ::-1], lps))
    assert_array_equal(one.array, ANATOMY)
    assert_array_equal(other.array, ANATOMY)
    assert_allclose(other.affine, ras)
    assert one.spacing == other.spacing == (1.0, 2.0, 3.0)


def test_axes_are_put_in_the_order_x_y_z(tmp_path):
    """A sagittal scan is stored slice by slice along x: spacing and axes must be permuted together."""
    stored = np.zeros((4, 4))  # stored axes are y, z, x
    stored[1, 0], stored[2, 1], stored[0, 2], stored[3, 3] = 2, 3, 1, 1
    volume = read(write(tmp_path / "sagittal.nii.gz", ANATOMY.transpose(1, 2, 0), stored))
    assert_array_equal(volume.array, ANATOMY)
    assert volume.spacing == (1.0, 2.0, 3.0)


def test_scaled_big_endian_nifti2_and_a_trailing_axis_are_read(tmp_path):
    scaled = nib.Nifti2Image((np.arange(8).reshape(2, 2, 2, 1)).astype(">i2"), np.eye(4))
    scaled.header.set_slope_inter(2.0, 1.0)
    scaled.header.set_data_dtype(">i2")
    path = tmp_path / "scaled.nii.gz"
    path.write_bytes(gzip.compress(scaled.to_bytes()))
    stored = nib.load(path).get_fdata()[..., 0]
    assert_array_equal(read(path).array, stored)
    assert read(path).array.dtype == np.float32


@pytest.mark.parametrize(
    "harm", ["truncated", "bad checksum", "empty", "plain named gz", "gz named nii", "missing", "short"]
)
def test_damaged_files_are_named(tmp_path, harm):
    """nibabel alone reads a bad checksum silently, and a truncated file's header without complaint."""
    path = write(tmp_path / "t1.nii.gz", ANATOMY)
    content = path.read_bytes()
    if harm == "truncated":
        path.write_bytes(content[:-40])
    elif harm == "bad checksum":
        path.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
        assert nib.load(path).get_fdata().shape == ANATOMY.shape
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "plain named gz":
        path.write_bytes(gzip.decompress(content))
    elif harm == "gz named nii":
        path = path.rename(tmp_path / "t1.nii")
    elif harm == "missing":
        path.unlink()
    elif harm == "short":
        path = tmp_path / "t1.nii"
        path.write_bytes(gzip.decompress(content)[:-100])
    error = fault(read, path)
    assert error.code == "unreadable"
    assert path.name in str(error)


def test_a_header_that_claims_a_terabyte_is_refused_before_memory_is_asked_for(tmp_path):
    content = bytearray(nib.Nifti1Image(ANATOMY, np.eye(4)).to_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1..3]
    path = tmp_path / "huge.nii"
    path.write_bytes(content)
    assert fault(read, path).code == "unreadable"


def test_four_dimensions_and_values_that_are_not_finite_are_refused(tmp_path):
    series = fault(read, write(tmp_path / "series.nii.gz", np.zeros((4, 4, 4, 5), np.float32)))
    assert series.code == "not_3d" and "(4, 4, 4, 5)" in str(series)
    holes = ANATOMY.astype(np.float64)
    holes[0, 0, :3] = np.nan, np.inf, 1e300  # the last is finite, but not as float32
    error = fault(read, write(tmp_path / "holes.nii.gz", holes))
    assert error.code == "non_finite" and "3 of 210" in str(error)


def test_an_error_crosses_a_process():
    """Ray and process pools pickle errors; the code must arrive."""
    error = pickle.loads(pickle.dumps(DataError("not_3d", "scan.nii: why")))
    assert (error.code, str(error)) == ("not_3d", "scan.nii: why")


# Written from the releases' documents: scheme -> label -> regions that hold it.
TABLE = {
    "brats2018": {1: "tc wt", 2: "wt", 4: "et tc wt"},
    "brats2019": {1: "tc wt", 2: "wt", 4: "et tc wt"},
    "brats2020": {1: "tc wt", 2: "wt", 4: "et tc wt"},
    "brats2021": {1: "tc wt", 2: "wt", 4: "et tc wt"},
    "brats2023": {1: "tc wt", 2: "wt", 3: "et tc wt"},
    "brats2024": {1: "tc wt", 2: "wt", 3: "et tc wt", 4: "cavity"},
    "msd": {1: "wt", 2: "tc wt", 3: "et tc wt"},
    "lumiere": {1: "et tc wt", 2: "tc wt", 3: "wt"},
    "mock": {1: "object"},
}


@pytest.mark.parametrize("scheme", LABELS)
def test_regions_follow_the_releases(scheme):
    regions = list(LABELS[scheme])
    for label, held in {0: "", **TABLE[scheme]}.items():
        made = regions_of(np.full((1, 1, 1), label, np.float32), scheme, regions)
        assert made.dtype == np.uint8 and made.shape == (len(regions), 1, 1, 1)
        assert {region for region, on in zip(regions, made.ravel(), strict=True) if on} == set(held.split())


def test_regions_come_in_the_order_asked_and_rounding_is_forgiven():
    """A scaled integer mask reads as 3.9999998; a mask that was interpolated is not forgiven."""
    mask = np.array([0.0, 2.0000005, 3.9999998], np.float32).reshape(3, 1, 1)
    made = regions_of(mask, "brats2020", ["wt", "et"])
    assert made[:, :, 0, 0].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert fault(regions_of, mask + 0.4, "brats2020", ["wt"]).code == "label_values"


def test_label_faults_name_what_is_known():
    """A BraTS 2020 mask under the scheme of 2023 must not pass as one without enhancing tumour."""
    error = fault(regions_of, np.array([[[0, 1, 4]]]), "brats2023", ["et"])
    assert error.code == "label_values" and "labels 4 " in str(error) and "1, 2, 3" in str(error)
    scheme = fault(regions_of, np.zeros((1, 1, 1)), "brats1999", ["et"])
    assert scheme.code == "unknown_labels" and "lumiere" in str(scheme)
    region = fault(regions_of, np.zeros((1, 1, 1)), "mock", ["et"])
    assert region.code == "unknown_regions" and "object" in str(region)


def test_a_channel_of_a_4d_file_is_one_volume(tmp_path):
    """MSD keeps a case's modalities in one file."""
    path = write(tmp_path / "BRATS_001.nii.gz", np.stack([ANATOMY, -ANATOMY], axis=3))
    assert_array_equal(read_volume(Scan(path, 1)).array, -ANATOMY)
    error = fault(read_volume, Scan(path, 2))
    assert error.code == "not_3d" and "channel 2" in str(error)
