"""Reading one NIfTI, and labels -> regions."""

import gzip
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import ConvertToMultiChannelBasedOnBratsClasses
from numpy.testing import assert_allclose, assert_array_equal

from gliofed.shared.data import volume
from gliofed.shared.data.labels import LABELS, regions_of
from gliofed.shared.data.volume import DataError, Scan, read_volume

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
    assert error.code == ("truncated" if harm == "short" else "unreadable")
    assert path.name in str(error)


def test_a_header_that_claims_a_terabyte_is_refused_before_memory_is_asked_for(tmp_path):
    content = bytearray(nib.Nifti1Image(ANATOMY, np.eye(4)).to_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1..3]
    path = tmp_path / "huge.nii"
    path.write_bytes(content)
    assert fault(read, path).code == "truncated"


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
    "ucsf_pdgm": {1: "tc wt", 2: "wt", 4: "et tc wt"},
    "lumiere": {1: "et tc wt", 2: "tc wt", 3: "wt"},
    "hd_glio": {1: "wt", 2: "et wt"},
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


@pytest.mark.parametrize("value", [255, 254.998, -1])
def test_a_mask_of_one_unknown_value_is_binary(value):
    """Not interpolated: nearest neighbour would not help."""
    error = fault(regions_of, np.float32([[[0, value]]]), "brats2020", ["et"])
    assert error.code == "label_values" and "tells no regions apart" in str(error) and "interpolated" not in str(error)
    assert "would fit brats2020" not in str(error)
    assert "would fit brats2018" in str(fault(regions_of, np.array([[[0, 4]]]), "brats2023", ["et"]))


def test_label_faults_name_what_is_known():
    """A BraTS 2020 mask under the scheme of 2023 must not pass as one without enhancing tumour."""
    error = fault(regions_of, np.array([[[0, 1, 4]]]), "brats2023", ["et"])
    assert error.code == "label_values" and "labels 4 " in str(error) and "1, 2, 3" in str(error)
    assert "1, 4 would fit brats2018 or brats2019 or brats2020 or brats2021 or brats2024 or ucsf_pdgm" in str(error)
    assert "would fit no scheme" in str(fault(regions_of, np.array([[[1, 7]]]), "brats2023", ["et"]))
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


def test_a_4d_file_is_decoded_once_for_all_its_channels_and_not_kept(tmp_path, monkeypatch):
    """Unzipping a case of MSD takes longer than all else; its 143 MB must not stay behind."""
    decoded, unzip = [], gzip.decompress
    monkeypatch.setattr(volume.gzip, "decompress", lambda content: decoded.append(1) or unzip(content))
    paths = [write(tmp_path / f"{n}.nii.gz", np.stack([ANATOMY + n, -ANATOMY], axis=3)) for n in range(2)]
    mask = write(tmp_path / "mask.nii.gz", ANATOMY)
    for n, path in enumerate(paths):
        assert_array_equal(read_volume(Scan(path, 1)).array, -ANATOMY)
        assert_array_equal(read_volume(Scan(path, 0)).array, ANATOMY + n)
    assert len(decoded) == 2 and volume._kept.image is None
    read_volume(Scan(paths[0], 1))
    assert volume._kept.image is not None
    read(mask)
    assert len(decoded) == 4 and volume._kept.image is None


def test_a_4d_file_that_changed_between_its_channels_is_read_again(tmp_path):
    path = write(tmp_path / "a.nii", np.stack([ANATOMY, -ANATOMY], axis=3))
    read_volume(Scan(path, 0))
    state = path.stat()
    write(path, np.stack([ANATOMY, ANATOMY], axis=3))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert_array_equal(read_volume(Scan(path, 1)).array, ANATOMY)


def test_threads_read_channels_without_each_others_files(tmp_path):
    """The checker reads cases in threads: a file kept by one must not be handed to another."""
    paths = [write(tmp_path / f"{n}.nii.gz", np.stack([ANATOMY + n, ANATOMY - n], axis=3)) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        reads = [[pool.submit(read_volume, Scan(path, n % 2)) for path in paths] for n in range(8)]
    for n, row in enumerate(reads):
        for number, future in enumerate(row):
            assert_array_equal(future.result().array, ANATOMY + (-number if n % 2 else number))


@pytest.mark.parametrize("et_label", [3, 4])
def test_monais_regions_are_wrong_for_msd_and_ours_are_not(et_label):
    """Why we have a mapping of our own: its order is TC, WT, ET, and it takes 2 for edema, which is 1 in MSD."""
    mask = np.array([0, 1, 2, 3]).reshape(1, 1, 4)
    theirs = ConvertToMultiChannelBasedOnBratsClasses(et_label=et_label)(mask)[:, 0, 0].astype(np.uint8)
    ours = regions_of(mask, "msd", ["tc", "wt", "et"])[:, 0, 0]
    assert ours.tolist() == [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]  # 1 edema, 2 core, 3 enhancing
    assert not np.array_equal(theirs, ours)
    assert theirs[0].tolist() == [0, 1, 0, et_label == 3]  # edema counted as core, the core as none
    assert theirs[2].any() == (et_label == 3)  # or no enhancing tumour at all


def test_an_affine_that_no_scanner_writes_is_refused(tmp_path):
    """Axes in one plane have no orientation, so the turn to RAS would be a guess; shears of a few degrees are real."""
    flat, far, sheared = np.eye(4), np.eye(4), np.eye(4)
    flat[:3, :3] = 4.0
    far[0, 3] = 1e30
    sheared[0, 1] = 0.1
    for affine in (flat, far):
        assert fault(read, write(tmp_path / "odd.nii", ANATOMY, affine)).code == "no_spatial_header"
    assert_array_equal(read(write(tmp_path / "sheared.nii", ANATOMY, sheared)).array, ANATOMY)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_of_no_size_are_not_taken_for_1_mm(kind, tmp_path):
    """As nibabel takes them, where only the edges say how large voxels are."""
    image = kind(ANATOMY, np.diag([8.0, 8.0, 8.0, 1.0]))
    image.set_sform(None, code=0)
    content = bytearray(image.to_bytes())
    offset, size = (76, 4) if kind is nib.Nifti1Image else (104, 8)
    content[offset + size : offset + 2 * size] = bytes(size)
    path = tmp_path / "none.nii"
    path.write_bytes(content)
    assert fault(read, path).code == "spacing"


def test_more_channels_than_were_named_are_refused(tmp_path):
    """Eight time points must not pass for four modalities."""
    path = write(tmp_path / "series.nii.gz", np.stack([ANATOMY] * 3, axis=3))
    assert_array_equal(read_volume(Scan(path, 0, 3)).array, ANATOMY)
    assert fault(read_volume, Scan(path, 0, 2)).code == "not_3d"
