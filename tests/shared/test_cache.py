"""Preparing entries, against slow and obvious arithmetic."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from waiting import PATIENCE

from gliofed.shared.config import DataConfig
from gliofed.shared.data import cache as module
from gliofed.shared.data import prepare as preparing
from gliofed.shared.data import transforms
from gliofed.shared.data.cache import open_entry
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.prepare import prepare, prepare_block
from gliofed.shared.data.transforms import resample
from gliofed.shared.data.volume import DataError

DATA = DataConfig(
    modalities=("flair", "t1"),
    regions=("wt", "et"),
    window=2,
    spacing=None,
    patch=(4, 4, 4),
    validation=0,
    split_seed=0,
)
BOX = (slice(2, 7), slice(1, 6), slice(3, 9))  # the brain in 9x8x10 voxels


def write_case(root, name, seed=0, spacing=1.0, shape=(9, 8, 10), images=("t1n", "t2f")):
    """A block of noise in nothing; label 3 in a part of it, 2 in another."""
    rng = np.random.default_rng(seed)
    (root / name).mkdir(parents=True)
    affine = np.diag([spacing, spacing, spacing, 1])
    for modality in images:
        array = np.zeros(shape, np.int16)
        array[BOX] = rng.integers(1, 900, (5, 5, 6))
        nib.save(nib.Nifti1Image(array, affine), root / name / f"{name}-{modality}.nii.gz")
    mask = np.zeros(shape, np.uint8)
    mask[3:6, 2:5, 4:7] = 2
    mask[4, 3, 5 + seed % 2] = 3
    nib.save(nib.Nifti1Image(mask, affine), root / name / f"{name}-seg.nii.gz")


def fault(cases, data, cache):
    with pytest.raises(DataError) as caught:
        prepare(cases, data, cache)
    return caught.value


@pytest.fixture
def cases(tmp_path):
    """Two visits of one patient."""
    write_case(tmp_path / "scans", "A-000", seed=0)
    write_case(tmp_path / "scans", "A-001", seed=1)
    return find_cases(tmp_path / "scans", "brats2023")


def test_an_entry_is_what_its_docstring_says(cases, tmp_path):
    """Order of visits and modalities, crop, z-score over the brain alone, regions, foreground."""
    entry = open_entry(prepare(cases, DATA, tmp_path / "cache"))
    assert entry.image.shape == (2, 2, 5, 5, 6) and entry.image.dtype == np.float16
    assert entry.mask.shape == (2, 2, 5, 5, 6) and entry.mask.dtype == np.uint8
    for visit, case in enumerate(cases):
        for channel, modality in enumerate(("flair", "t1")):
            stored = nib.load(case.images[modality].path).get_fdata()
            brain = stored[stored > 0]
            expected = (stored[BOX] - brain.mean()) / brain.std()
            assert_allclose(entry.image[visit, channel], expected, atol=2e-3)  # fp16 near 2
        labels = np.asarray(nib.load(case.mask.path).dataobj)[BOX]
        assert_array_equal(entry.mask[visit], [labels > 0, labels == 3])
    assert_array_equal(entry.foreground, np.argwhere(entry.mask.any(axis=1)))
    assert_array_equal(entry.by_region, np.argwhere(entry.mask))


def test_zero_stays_zero_and_a_brain_seen_in_any_scan_is_kept(tmp_path):
    """The box is the union over visits and modalities; a modality's own background in it is 0, not a negative score."""
    write_case(tmp_path / "s", "A-000")
    path = tmp_path / "s/A-000/A-000-t1n.nii.gz"
    image = np.zeros((9, 8, 10), np.int16)
    image[0, 0, 0], image[1, 0, 0] = 5, 7
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)
    entry = open_entry(prepare(find_cases(tmp_path / "s", "brats2023"), DATA, tmp_path / "cache"))
    assert entry.image.shape[2:] == (7, 6, 9)  # from 0 to the end of BOX
    assert entry.image[0, 1, :2, 0, 0].tolist() == [-1, 1]
    assert np.count_nonzero(entry.image[0, 1]) == 2


def test_nothing_to_crop_and_nothing_to_scale(tmp_path):
    """A scan that is not skull-stripped has no zeros; an empty one has nothing else: both keep their size, finite."""
    for name, value in (("A-000", 4), ("B-000", 0)):
        write_case(tmp_path / "s", name)
        for path in (tmp_path / "s" / name).glob("*-t*.nii.gz"):
            nib.save(nib.Nifti1Image(np.full((9, 8, 10), value, np.int16), np.eye(4)), path)
    for case in find_cases(tmp_path / "s", "brats2023"):
        entry = open_entry(prepare([case], DATA, tmp_path / "cache"))
        assert entry.image.shape[2:] == (9, 8, 10)
        assert not entry.image.any()


def test_resampling_keeps_size_and_place():
    """Halving takes the mean of pairs (linear) and doubling the nearest: the outer faces stay, so mm stay."""
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    halved = resample(array, (1.0, 2.0, 2.0), (2.0,) * 3, order=1)
    assert_allclose(halved, (array[::2] + array[1::2]) / 2)
    doubled = resample(array.astype(np.uint8), (2.0, 2.0, 2.0), (1.0,) * 3, order=0)
    assert_array_equal(doubled, array.repeat(2, 0).repeat(2, 1).repeat(2, 2))
    thick = resample(np.zeros((40, 40, 7)), (1.0, 1.0, 6.0), (1.5,) * 3, order=1)
    assert_allclose(np.array(thick.shape) * 1.5, [40, 40, 42], atol=0.75)


def test_spacing_of_the_config_is_met_but_one_percent_is_let_be(tmp_path):
    write_case(tmp_path / "s", "A-000", spacing=2.0)
    (case,) = find_cases(tmp_path / "s", "brats2023")
    as_is = open_entry(prepare([case], replace(DATA, spacing=2.01), tmp_path / "cache"))
    assert as_is.image.shape[2:] == (5, 5, 6)
    fine = open_entry(prepare([case], replace(DATA, spacing=1.0), tmp_path / "cache"))
    # Linear interpolation smears the brain's edge by less than a voxel of the scan on each side.
    assert all(2 * size <= edge <= 2 * size + 2 for size, edge in zip((5, 5, 6), fine.image.shape[2:], strict=True))
    assert set(np.unique(fine.mask)) == {0, 1}
    assert fine.mask[0, 0].sum() == 8 * as_is.mask[0, 0].sum()  # the same volume in mm


def test_foreground_is_an_even_share_of_each_visit_and_the_same_everywhere(cases, tmp_path, monkeypatch):
    """A visit with a large tumour must not crowd out one with a small one, nor may the draw hang on file times."""
    monkeypatch.setattr(transforms, "FOREGROUND", 20)
    first = open_entry(prepare(cases, DATA, tmp_path / "one"))
    for case in cases:
        os.utime(case.mask.path, ns=(1, 1))
    second = open_entry(prepare(cases, DATA, tmp_path / "two"))
    assert_array_equal(first.foreground, second.foreground)
    assert np.bincount(first.foreground[:, 0]).tolist() == [10, 10]
    assert len(np.unique(first.foreground, axis=0)) == 20
    visit, *place = first.foreground.T
    assert first.mask.any(axis=1)[visit, *place].all()


def test_a_small_region_keeps_voxels_of_its_own_beside_a_large_one(cases, tmp_path, monkeypatch):
    """Of a share of the whole tumour it might have none left, and would not be found by foreground_by=region."""
    monkeypatch.setattr(transforms, "FOREGROUND", 20)
    entry = open_entry(prepare(cases, DATA, tmp_path / "cache"))
    visit, region, *place = entry.by_region.T
    assert entry.mask[visit, region, *place].all()
    in_each = entry.mask.sum(axis=(2, 3, 4)).clip(max=10)
    kept = [[((visit == v) & (region == r)).sum() for r in range(2)] for v in range(2)]
    assert_array_equal(kept, in_each)
    assert in_each.min() > 0


@pytest.mark.parametrize("change", ["file", "spacing", "regions", "modalities", "labels", "visits", "version"])
def test_another_input_is_another_entry(cases, tmp_path, monkeypatch, change):
    """A stale entry would train on what is no longer asked for."""
    before = prepare(cases, DATA, tmp_path / "cache")
    data = DATA
    if change == "file":
        os.utime(cases[0].mask.path, ns=(1, 1))
    elif change == "spacing":
        data = replace(DATA, spacing=2.0)
    elif change == "regions":
        data = replace(DATA, regions=("et", "wt"))
    elif change == "modalities":
        data = replace(DATA, modalities=("t1", "flair"))
    elif change == "labels":
        cases = [replace(case, labels="brats2024") for case in cases]
    elif change == "visits":
        cases = cases[1:]
    elif change == "version":
        monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert prepare(cases, data, tmp_path / "cache") != before


def test_an_entry_is_prepared_once_and_follows_a_moved_folder(cases, tmp_path, monkeypatch):
    """Training settings are not part of it, nor is where the folder is mounted."""
    before = prepare(cases, DATA, tmp_path / "cache")
    (tmp_path / "scans").rename(tmp_path / "moved")
    monkeypatch.setattr(preparing, "read_volume", None)  # would fail if called
    moved = find_cases(tmp_path / "moved", "brats2023")
    assert prepare(moved, replace(DATA, patch=(8, 8, 8), window=1), tmp_path / "cache") == before


def test_a_half_written_entry_is_never_read(cases, tmp_path, monkeypatch):
    """A process that dies at any write leaves nothing under the entry's name, and the next one starts anew."""
    cache = tmp_path / "cache"
    save = np.save

    def dies(file, array, **options):
        if array.ndim == 2:  # foreground, after image and mask
            raise KeyboardInterrupt
        save(file, array, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module.np, "save", dies)
        patched.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # as if killed: nobody cleans up
        with pytest.raises(KeyboardInterrupt):
            prepare(cases, DATA, cache)
    (half,) = cache.iterdir()
    assert (half / "image.npy").exists()
    entry = prepare(cases, DATA, cache)
    assert entry != half and open_entry(entry).image.shape[0] == 2


@pytest.mark.parametrize("name", ["image.npy", "mask.npy", "foreground.npy", "by_region.npy", "entry.json"])
@pytest.mark.parametrize("content", [b"", b"{", None])
def test_a_damaged_entry_is_named(cases, tmp_path, name, content):
    """A command that reads it ended in a traceback, and a site said no more than that there was an error."""
    entry = prepare(cases, DATA, tmp_path / "cache")
    (entry / name).unlink()
    if content is not None:
        (entry / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{entry.name}: damaged; remove this folder") as error:
        open_entry(entry)
    assert error.value.code == "unreadable"


def test_a_full_disk_leaves_nothing_half(cases, tmp_path, monkeypatch):
    """A half entry would hold space that the next try needs, and an empty mask would train as "no tumour"."""
    cache = tmp_path / "cache"
    save = np.save

    def is_full(file, array, **options):
        if array.dtype == np.uint8:  # the mask: the image is written, its first bytes are too
            file.write_bytes(b"\x93NUMPY")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(file, array, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module.np, "save", is_full)
        with pytest.raises(OSError, match="No space left"):
            prepare(cases, DATA, cache)
    assert not any(cache.iterdir())
    assert open_entry(prepare(cases, DATA, cache)).mask.any()


def test_two_may_prepare_at_once(cases, tmp_path, monkeypatch):
    """Processes or threads: both get the one entry; the later rename meets a full folder and gives way."""
    met, arrays = Barrier(2, timeout=PATIENCE), preparing._segmentation

    def meet(*given):  # both are past the check for an entry before either writes one
        met.wait()
        return arrays(*given)

    monkeypatch.setattr(preparing, "_segmentation", meet)
    with ThreadPoolExecutor(2) as both:
        answers = list(both.map(lambda _: prepare(cases, DATA, tmp_path / "cache"), range(2)))
    assert answers[0] == answers[1]
    assert list((tmp_path / "cache").iterdir()) == [answers[0]]
    assert open_entry(answers[0]).image.shape[0] == 2


def test_a_case_with_two_files_for_one_image_is_left_out(cases, tmp_path):
    """Also where it is graded, which does with some of the images; another modality's do not matter."""
    copy = cases[0].images["t1"].path.with_name("A-000-t1n (1).nii.gz")
    copy.write_bytes(b"")
    first = find_cases(tmp_path / "scans", "brats2023")[0]
    for prepare_as in (
        lambda data: prepare([first], data, tmp_path),
        lambda data: prepare_block(first, data, tmp_path),
    ):
        with pytest.raises(DataError) as caught:
            prepare_as(DATA)
        assert caught.value.code == "two_files" and str(copy) in str(caught.value)
    prepare([first], replace(DATA, modalities=("flair",)), tmp_path / "cache")


def test_faults_carry_code_and_file(cases, tmp_path):
    cache = tmp_path / "cache"
    assert fault(cases, replace(DATA, modalities=("t1", "t2")), cache).code == "missing_modality"
    assert fault([replace(cases[0], mask=None)], DATA, cache).code == "missing_mask"
    wrong_scheme = fault([replace(cases[0], labels="brats2020")], DATA, cache)
    assert wrong_scheme.code == "label_values" and "A-000-seg.nii.gz" in str(wrong_scheme)
    write_case(tmp_path / "other", "A-002", shape=(9, 8, 11))
    write_case(tmp_path / "other", "A-003", spacing=2.0)
    for odd in find_cases(tmp_path / "other", "brats2023"):
        error = fault([*cases, odd], DATA, cache)
        assert error.code == "shape_mismatch" and f"A-{odd.visit}" in str(error) and "9x8x10" in str(error)
    cases[0].mask.path.write_bytes(cases[0].mask.path.read_bytes()[:-9])
    broken = fault(cases, DATA, cache)
    assert broken.code == "unreadable" and "A-000-seg.nii.gz" in str(broken)
    assert not any(cache.glob("*"))
