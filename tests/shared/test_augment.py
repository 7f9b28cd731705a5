"""Changes of patches: only what is asked for, alike for image and mask, against slow oracles."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from small_patches import CPU, OFF, brain, drawn, entry_of, only, patch, rng
from torch.testing import assert_close

from gliofed.shared.config import AugmentConfig, DataConfig, TrainConfig
from gliofed.shared.data.augment import Changes, change_intensity, turn
from gliofed.shared.data.cache import Entry, keep
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.tasks.grading import GRADE

ALL = AugmentConfig(chance=1, flip=0.5, rotation=15, scaling=0.1, noise=0.1, bias=0.3, gamma=0.3, dropout=0.3)
DATA = DataConfig(
    modalities=("t1", "t2"), regions=("et", "wt"), window=3, spacing=None, patch=(9, 8, 7), validation=0, split_seed=0
)
TRAIN = TrainConfig(
    steps=1,
    epochs=None,
    batch=2,
    lr=1e-3,
    weight_decay=0,
    clip=None,
    foreground=0.5,
    class_weights=None,
    precision="fp32",
)
SPACING = (1.0, 1.0, 1.0)


def ball(size=21, radius=7):
    """A smooth ball off the centre; above 0.5 where its mask is."""
    places = np.indices((size,) * 3) - np.array([size // 2 - 1, size // 2 + 2, size // 2])[:, None, None, None]
    return torch.from_numpy(1 / (1 + np.exp((np.sqrt((places**2).sum(0)) - radius) * 2))).float()[None]


@pytest.fixture
def patient(tmp_path):
    """Three visits of a lump of brain with a tumour; the second is brighter by 1, so that visits can be told apart."""
    image = np.zeros((3, 2, 14, 12, 10), np.float16)
    image[..., 2:12, 2:10, 1:9] = rng(2).standard_normal((2, 10, 8, 8))
    image[1] += (image[1] != 0).astype(np.float16)
    mask = np.zeros((3, 2, 14, 12, 10), np.uint8)
    mask[:, 1, 4:9, 4:8, 3:7] = 1
    mask[:, 0, 5:7, 5:7, 4:6] = 1
    path = keep({"of": "a test"}, lambda: entry_of(image, mask, SPACING), tmp_path)
    return Patient("A", ("0", "1", "2"), (path,), "HGG")


def cut(patient, augment, seed=0, series=True):
    return patch(patient, DATA, replace(TRAIN, augment=augment), rng(seed), series)


def turned(block, size, changes, nearest=False):
    """One block (..., D, H, W), as an image or as a mask."""
    return (
        turn([torch.zeros(1, 1, *block.shape[-3:]), block[None]], size, [changes])[1][0]
        if nearest
        else (turn([block[None]], size, [changes])[0][0])
    )


def test_off_draws_nothing_and_changes_nothing(patient):
    """A sample without changes is what was cut, bit for bit."""
    generator = rng()
    changes = drawn(OFF, generator)
    assert changes == Changes() and changes.block((9, 8, 7)) == (9, 8, 7)
    assert generator.random() == rng().random()
    image = brain()
    assert torch.equal(turned(image, (6, 7, 8), changes), image)
    assert change_intensity(image[None], [changes]).data_ptr() == image.data_ptr()


@pytest.mark.parametrize("series", [True, False])
def test_the_generator_alone_decides(patient, series):
    first, again, other = (cut(patient, ALL, seed, series) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == ((3, 2, 9, 8, 7) if series else (2, 9, 8, 7))


def test_mirrors_are_numpys(patient):
    """Of the patch that is cut without them, which the same generator places."""
    choices = {axes for number in range(4) for axes in combinations((-3, -2, -1), number)}
    seen = set()
    for seed in range(60):
        whole = replace(DATA, patch=(14, 12, 10))  # nothing to place
        image, target = patch(patient, whole, replace(TRAIN, augment=only(flip=0.5)), rng(seed), True)
        plain, mask = patch(patient, whole, TRAIN, rng(seed), True)
        [axes] = [axes for axes in choices if np.array_equal(image, np.flip(plain.numpy(), axes))]
        assert_array_equal(target, np.flip(mask.numpy(), axes))
        seen.add(axes)
    assert seen == choices


@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize("config", [only(rotation=12), only(scaling=0.3), only(rotation=30, scaling=0.3)])
def test_turns_and_scales_are_scipys(config, nearest):
    """The same matrix about the centres, from a block larger than the patch and with other edges."""
    image = torch.from_numpy(rng(1).random((2, 15, 13, 12), np.float32))
    size = (9, 8, 7)
    changes = drawn(config, rng(1))
    made, matrix = turned(image, size, changes, nearest), changes.matrix
    offset = (np.array(image.shape[1:]) - 1) / 2 - matrix @ ((np.array(size) - 1) / 2)
    expected = [
        ndimage.affine_transform(channel, matrix, offset, size, order=0 if nearest else 1, mode="grid-constant")
        for channel in image.numpy()
    ]
    assert_allclose(made, expected, atol=2e-5)


def test_a_scale_makes_a_ball_larger_by_that_factor_and_a_turn_does_not():
    for seed in range(5):
        changes = drawn(only(scaling=0.2), rng(seed))
        factor = 1 / changes.matrix[0, 0]
        assert 1 / 1.2 <= factor <= 1.2
        assert_allclose(turned(ball(), (21,) * 3, changes).sum() / ball().sum(), factor**3, rtol=0.03)
    rotated = turned(ball(), (21,) * 3, drawn(only(rotation=15), rng()))
    assert_allclose(rotated.sum() / ball().sum(), 1, rtol=0.01)


def test_thick_slices_are_turned_in_millimetres():
    """In voxels of 1 x 1 x 5 mm the matrix must be a turn of millimetres; turning voxels would shear the head."""
    edges = np.diag([1.0, 1.0, 5.0])
    matrix = drawn(only(rotation=20), rng(), spacing=(1.0, 1.0, 5.0)).matrix
    rotation = edges @ matrix @ np.linalg.inv(edges)
    assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert abs(np.linalg.det(rotation) - 1) < 1e-12 and not np.allclose(rotation, np.eye(3))


@pytest.mark.parametrize("config", [only(rotation=40, scaling=0.3), only(scaling=0.3)])
def test_a_turned_patch_has_no_empty_corners(config):
    """The block that it is made from reaches as far as the corners do, and shares the patch's centre.

    Also where the content grows, and a smaller block would do: others of the batch may need all of the patch.
    """
    size = (9, 8, 7)
    for seed in range(20):
        changes = drawn(config, rng(seed))
        block = changes.block(size)
        assert_allclose(turned(torch.ones(1, *block), size, changes), 1, atol=1e-5)
        assert all((edge - want) % 2 == 0 for edge, want in zip(block, size, strict=True))


def test_image_and_mask_move_together():
    """The mask of the moved image is the moved mask, but for voxels that interpolation puts at its edge."""
    image = ball()
    mask = (image > 0.5).float()
    for seed in range(8):
        changes = drawn(only(rotation=30, scaling=0.2), rng(seed))
        moved, moved_mask = turned(image, (21,) * 3, changes), turned(mask, (21,) * 3, changes, nearest=True)
        assert set(moved_mask.unique().tolist()) == {0, 1}
        wrong = (moved > 0.5).float() != moved_mask
        assert wrong.sum() < 0.2 * mask.sum()  # half a voxel of a radius of 7
        assert ((moved[wrong] - 0.5).abs() < 0.35).all()  # a voxel of the edge, not of another place


def test_a_patch_and_its_target_come_from_the_same_place(patient, tmp_path):
    """Through `patch`, with an entry whose image is its mask: a block that is cut at another corner would show."""
    mask = np.zeros((1, 1, 14, 12, 10), np.uint8)
    mask[..., 3:8, 4:9, 2:7] = 1
    image = mask.astype(np.float16)
    path = keep({"of": "another"}, lambda: entry_of(image, mask, SPACING), tmp_path)
    both = Patient("B", ("0",), (path,))
    generator, kept = rng(), 0
    for _ in range(30):
        train = replace(TRAIN, augment=only(flip=0.5, rotation=20, scaling=0.2))
        image, target = patch(both, DATA, train, generator, False)
        assert (((image > 0.5) != (target > 0.5)) <= ((image > 0.05) & (image < 0.95))).all()
        kept += int(target.sum())
    assert kept > 0


def test_visits_of_a_series_stay_comparable(patient):
    """But for noise, a voxel that did not change between visits still has not, wherever it went."""
    still = replace(ALL, noise=0)
    for seed in range(5):
        image, target = cut(patient, still, seed)
        assert_close(image[0], image[2])  # visits 0 and 2 of the patient are the same
        assert torch.equal(target[0], target[1]) and not torch.equal(image[0], image[1])
        assert set(target.unique().tolist()) <= {0, 1}
        assert ((target[:, 0] == 1) <= (target[:, 1] == 1)).all()  # et lies in wt


def test_grading_hears_of_dropped_modalities(tmp_path):
    """What the model is told to be there is what is there."""
    image = np.abs(rng().standard_normal((1, 3, 6, 6, 6))).astype(np.float16)
    image[:, 1] = 0
    nothing = np.zeros((1, 0, 6, 6, 6), np.uint8), np.zeros((0, 4), np.int32), np.zeros((0, 5), np.int32)
    path = keep({"of": "grading"}, lambda: Entry(image, *nothing, np.array([[True, False, True]]), SPACING), tmp_path)
    train = replace(TRAIN, augment=replace(ALL, dropout=0.5), batch=20)
    data = replace(DATA, modalities=("t1", "t1ce", "t2"))
    [batch] = batches(Source([Patient("A", ("0",), (path,), "LGG")], data, train, GRADE, (0,)), 1, CPU)
    assert batch.image.shape == (20, 3, 6, 6, 6)
    assert torch.equal(batch.image.abs().amax((-3, -2, -1)) > 0, batch.present)
    assert {tuple(row) for row in batch.present.tolist()} == {
        (True, False, True),
        (True, False, False),
        (False, False, True),
    }
