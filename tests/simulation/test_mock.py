"""Mock volumes are MONAI's, the same on every run."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from found_cohort import found_cohort
from monai.data.synthetic import create_test_image_3d
from numpy.testing import assert_array_equal
from scipy import ndimage

from gliofed.shared.config import DataConfig
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation import mock
from gliofed.simulation.mock import MockConfig, draw, write_mock

CONFIG = MockConfig(patients=2, visits=3, size=(32, 28, 24), objects=3, radius_max=7, radius_min=4, noise=0.3, seed=5)


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_first_visit_is_monais_own_volume():
    image, mask = next(draw(CONFIG, site=2, patient=1))
    expected, label = create_test_image_3d(
        32, 28, 24, 3, 7, 4, 0.3, num_seg_classes=1, random_state=np.random.RandomState([5, 2, 1])
    )
    assert_array_equal(image, expected)
    assert_array_equal(mask, label)


def test_later_visits_are_the_first_ones_balls_moved_and_grown():
    """Without noise one ball is a clean shape: its centre drifts evenly, its volume grows by the zoom cubed."""
    config = replace(CONFIG, objects=1, noise=0.0, size=(48, 48, 48), radius_min=10, radius_max=14)
    images, masks = zip(*draw(config, site=0, patient=0), strict=True)
    centres = np.array([ndimage.center_of_mass(mask) for mask in masks])
    steps = np.diff(centres, axis=0)
    assert 0 < np.linalg.norm(steps[0]) < 48 * (mock.DRIFT + mock.GROWTH / 2)
    np.testing.assert_allclose(steps[0], steps[1], atol=1)  # the nearest voxel, in three visits
    volumes = [mask.sum() for mask in masks]
    assert volumes[0] < volumes[1] < volumes[2]
    assert 1 + mock.GROWTH / 2 <= (volumes[2] / volumes[0]) ** (1 / 3) + 0.03 <= 1 + mock.GROWTH + 0.06
    for image, mask in zip(images, masks, strict=True):
        assert image.max() == 1 and np.mean((image > 0.5) == mask) > 0.99  # moved together; they differ on the surface


def test_moving_is_a_shift_after_a_zoom_about_the_centre():
    volume = np.random.default_rng(0).normal(size=(6, 5, 4))
    shifted = mock._move(volume, np.array([2.0, 0.0, -1.0]), 1.0, order=1)
    np.testing.assert_allclose(shifted[2:, :, :-1], volume[:-2, :, 1:], atol=1e-12)
    assert not shifted[:2].any() and not shifted[:, :, -1].any()
    plane = np.zeros((5, 5, 5))
    plane[:, :, 2] = 1
    zoomed = mock._move(plane, np.zeros(3), 2.0, order=1)
    np.testing.assert_allclose(zoomed[0, 0], [0, 0.5, 1, 0.5, 0])


def test_noise_is_new_but_alike_in_every_visit():
    images, masks = zip(*draw(CONFIG, site=0, patient=0), strict=True)
    noise = [image[ndimage.binary_dilation(mask, iterations=2) == 0] for image, mask in zip(images, masks, strict=True)]
    deviations = [values.std() for values in noise]
    assert max(deviations) < 1.2 * min(deviations)
    assert not np.array_equal(images[1], images[2])


def test_a_rerun_writes_the_same_bytes_and_mends_what_is_missing(tmp_path):
    write_mock(CONFIG, tmp_path / "one", site=3)
    write_mock(CONFIG, tmp_path / "two", site=3)
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two")
    assert len(first) == 2 * 3 * 2  # patients, visits, scan and mask
    kept = tmp_path / "one/Mock-03000-001/Mock-03000-001-seg.nii.gz"
    before = kept.stat().st_mtime_ns
    for path in (tmp_path / "one/Mock-03001-002").iterdir():
        path.unlink()
    (tmp_path / "one/Mock-03001-002").rmdir()
    write_mock(CONFIG, tmp_path / "one", site=3)
    assert contents(tmp_path / "one") == first
    assert kept.stat().st_mtime_ns == before


def test_a_killed_writer_leaves_no_case(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(mock.gzip, "compress", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_mock(CONFIG, tmp_path, site=0)
    assert list(tmp_path.iterdir()) == []
    heard = []
    write_mock(CONFIG, tmp_path, site=0, report=lambda: heard.append(1))
    assert len(find_cases(tmp_path, "mock")) == len(heard) == 6


def test_seed_site_and_patient_each_matter_and_more_patients_change_nothing(tmp_path):
    first = next(draw(CONFIG, 0, 0))[0]
    others = [draw(CONFIG, 1, 0), draw(CONFIG, 0, 1), draw(replace(CONFIG, seed=6), 0, 0)]
    assert not any(np.array_equal(first, next(other)[0]) for other in others)
    write_mock(CONFIG, tmp_path, site=0)
    before = contents(tmp_path)
    write_mock(replace(CONFIG, patients=3), tmp_path, site=0)
    assert before.items() <= contents(tmp_path).items()


def test_what_is_written_is_read_whole_by_the_path_of_real_data(tmp_path):
    """No voxel is 0, so nothing is cropped and dark noise counts in the z-score, as MONAI's volume has it."""
    write_mock(replace(CONFIG, noise=0.0), tmp_path / "site", site=0)
    (scan, *_) = sorted((tmp_path / "site").glob("*-000/*t1n.nii.gz"))
    assert np.asarray(nib.load(scan).dataobj).min() == 1
    site = SiteConfig(name="mock", root=str(tmp_path / "site"), labels="mock", work=str(tmp_path / "work"))
    data = DataConfig(
        modalities=("t1",), regions=("object",), window=3, spacing=1.0, patch=(8, 8, 8), validation=0, split_seed=0
    )
    cohort = found_cohort(site, data, "series")
    assert [patient.name for patient in cohort.train] == ["Mock-00000", "Mock-00001"]
    image, mask = (np.load(cohort.train[0].entries[0] / f"{name}.npy") for name in ("image", "mask"))
    assert image.shape == mask.shape == (3, 1, 32, 28, 24)
    assert_array_equal(mask[:, 0], [mask for _, mask in draw(replace(CONFIG, noise=0.0), 0, 0)])


def test_the_first_clstm_runs_can_be_drawn():
    config = MockConfig(visits=5, size=(128, 128, 32), objects=12, radius_max=15, radius_min=5, noise=0.0)
    image, mask = next(draw(config, site=0, patient=0))
    assert image.shape == (128, 128, 32) and mask.any()


def test_a_radius_that_monai_refuses_is_named():
    with pytest.raises(ValueError, match=r"data\.radius_max=16.*half of the shortest edge"):
        MockConfig(size=(64, 64, 32), radius_max=16)
