"""Batches that workers draw and a device changes, against slow oracles of single samples."""

import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from small_patches import CPU, entry_of, lumps, rng
from torch.testing import assert_close

from gliofed.shared.config import AugmentConfig, DataConfig, TrainConfig
from gliofed.shared.data.augment import Changes
from gliofed.shared.data.cache import keep
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Pick, Source, batches, draw, in_random_order
from gliofed.shared.data.volume import DataError
from gliofed.shared.tasks.grading import GRADE

ALL = AugmentConfig(chance=0.6, flip=0.5, rotation=25, scaling=0.2, noise=0.2, bias=0.3, gamma=0.3, dropout=0.3)
SIZE = (9, 8, 7)
DATA = DataConfig(
    modalities=("t1", "t2"), regions=("et", "wt"), window=2, spacing=None, patch=SIZE, validation=0, split_seed=0
)
TRAIN = TrainConfig(
    steps=1,
    epochs=None,
    batch=4,
    lr=1e-3,
    weight_decay=0,
    clip=None,
    foreground=0.5,
    foreground_by="region",
    class_weights="balanced",
    precision="fp32",
    augment=ALL,
)
BY = ("voxel", "region")
READINGS = ["visits", "series", GRADE]


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    return lumps(tmp_path_factory.mktemp("cache"), 5)


def picks(patients, seeds):
    return [Pick(patients[seed % 5], rng(seed), 1.0) for seed in seeds]


def parts(batch):
    return [part for part in (batch.image, batch.target, batch.present, batch.weight) if part is not None]


def slowly(block, mask, changes):
    """One sample, from its blocks (T, C or R, D, H, W), in double precision by NumPy and SciPy, voxel by voxel."""
    if changes.matrix is not None:
        offset = (np.array(block.shape[2:]) - 1) / 2 - changes.matrix @ ((np.array(SIZE) - 1) / 2)

        def moved(volumes, order):
            made = [
                ndimage.affine_transform(each, changes.matrix, offset, SIZE, order=order, mode="grid-constant")
                for each in volumes.reshape(-1, *volumes.shape[2:])
            ]
            return np.stack(made).reshape(*volumes.shape[:2], *SIZE)

        block, mask = moved(block, 1), moved(mask, 0)
    else:
        middle = tuple(
            slice((edge - want) // 2, (edge + want) // 2) for edge, want in zip(block.shape[2:], SIZE, strict=True)
        )
        block, mask = block[:, :, *middle], mask[:, :, *middle]
    brain, image = block != 0, block.copy()
    for channel in range(block.shape[1]):
        inside = brain[:, channel]
        if not inside.any():
            continue
        values = image[:, channel]
        if changes.bias is not None:
            places = [(index + 0.5) / edge * np.pi for index, edge in zip(np.indices(SIZE), SIZE, strict=True)]
            field = np.zeros(SIZE)
            for (d, h, w), weight in np.ndenumerate(changes.bias[channel]):
                field += weight * np.cos(d * places[0]) * np.cos(h * places[1]) * np.cos(w * places[2])
            low = values[inside].min()
            values = low + (values - low) * np.exp(field / np.abs(field).max() * changes.strength[channel])
        if changes.gamma is not None:
            low, high = values[inside].min(), values[inside].max()
            values = low + (high - low) * ((values - low) / (high - low)).clip(0, 1) ** changes.gamma[channel]
        image[:, channel] = values
    if changes.noise is not None:
        deviation, seed = changes.noise
        image += deviation * torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).numpy()
    return np.where(brain, image, 0), mask


@pytest.mark.parametrize("series", [True, False])
def test_a_batch_is_its_samples_one_by_one_and_slowly(patients, series):
    """Every change occurs, and beside each some sample that lacks it; also through the mask's nearest voxel."""
    drawn = draw(picks(patients, range(16)), DATA, TRAIN, "series" if series else "visits")
    for name in ("mirrored", "dropped", "matrix", "bias", "gamma", "noise"):
        assert len({str(getattr(each, name)) in ("None", "()") for each in drawn.changes}) == 2, name
    batch = drawn.to(CPU)
    for row, changes in enumerate(drawn.changes):
        blocks = (each[row].numpy().astype(np.float64) for each in (drawn.blocks.image, drawn.blocks.target))
        image, mask = slowly(*blocks, changes)
        assert_allclose(batch.image[row], image if series else image[0], atol=2e-4)
        assert_array_equal(batch.target[row], mask if series else mask[0])


@pytest.mark.parametrize("reading", READINGS, ids=["visits", "series", "grade"])
def test_a_sample_does_not_depend_on_its_company(patients, reading):
    """But for the rounding of a block of another size."""
    together = draw(picks(patients, range(6)), DATA, TRAIN, reading).to(CPU)
    for seed in range(6):
        alone = draw(picks(patients, [seed]), DATA, TRAIN, reading).to(CPU)
        assert_close([part[seed] for part in parts(together)], [part[0] for part in parts(alone)], rtol=0, atol=1e-4)


@pytest.mark.parametrize("series", [True, False])
def test_a_sample_without_changes_is_what_was_cut_bit_for_bit(patients, series):
    """Also beside one that is turned, for which all blocks are larger."""
    train = replace(TRAIN, augment=replace(ALL, flip=0, dropout=0, chance=0.2))
    drawn = draw(picks(patients, range(24)), DATA, train, "series" if series else "visits")
    batch, low = drawn.to(CPU), (np.array(drawn.blocks.image.shape[3:]) - SIZE) // 2
    assert low.all()
    untouched = [row for row, each in enumerate(drawn.changes) if str(each) == str(Changes())]
    assert untouched
    middle = tuple(slice(start, start + edge) for start, edge in zip(low, SIZE, strict=True))
    for made, blocks in ((batch.image, drawn.blocks.image), (batch.target, drawn.blocks.target)):
        expected = blocks[(..., *middle)].float()
        assert torch.equal(made[untouched], expected[untouched] if series else expected[untouched, 0])


@pytest.mark.parametrize("reading", READINGS, ids=["visits", "series", "grade"])
def test_any_number_of_workers_draws_the_same(patients, reading):
    """Also in the mixture of several sites, of which each keeps its own samples."""
    sources = [(Source(patients[:2], DATA, TRAIN, reading, (0, "a", 1)), 12)]
    sources += [(Source(patients[2:], DATA, TRAIN, reading, (0, "b", 1)), 8)]
    seen = []
    for workers in (0, 1, 3):
        each = [*batches(sources[0][0], 6, CPU, workers), *in_random_order(sources, rng(), CPU, workers)]
        assert len(each) == 6 + 5
        seen.append(torch.cat([part.double().flatten() for batch in each for part in parts(batch)]))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


def test_a_sample_follows_from_its_number_alone(patients):
    """So a site that takes another batch size, or begins in the middle, has the same samples; each pass has all."""
    source = Source(patients, DATA, TRAIN, "visits", (0, "a", 1))
    names = [source.pick(number).patient.name for number in range(50)]
    assert [source.pick(number).patient.name for number in reversed(range(50))] == names[::-1]
    passes = [names[start : start + 5] for start in range(0, 50, 5)]
    assert all(set(one) == {each.name for each in patients} for one in passes)
    assert any(one != other for one, other in pairwise(passes))
    first = torch.cat([batch.image for batch in batches(replace(source, train=replace(TRAIN, batch=2)), 4, CPU)])
    other = torch.cat([batch.image for batch in batches(source, 2, CPU)])
    assert_close(first, other, rtol=0, atol=1e-4)


def test_a_file_that_is_gone_is_an_error_in_the_loop(patients, tmp_path):
    """With its own type, after what was drawn before it; and no thread stays."""
    [gone] = [replace(patients[0], entries=(tmp_path / "gone",))]
    source = Source([*patients[:4], gone], DATA, replace(TRAIN, batch=5), "visits", (0, "a", 1))
    for workers in (0, 2):
        with pytest.raises(DataError, match="gone"), closing(batches(source, 3, CPU, workers)) as drawn:
            list(drawn)
        assert not [each for each in threading.enumerate() if each.name.startswith("ahead")]


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["visits", "series"])
def test_each_region_that_the_visits_have_is_centred_as_often(tmp_path, reading):
    """However few voxels it has: against counts of each region's places, of a patient who has the first in one visit.

    The image tells where a voxel is, so the middle of a patch says what it was centred on.
    """
    mask = np.zeros((2, 3, 20, 20, 20), np.uint8)
    mask[:, 2, 4:16, 4:16, 4:16] = 1  # 1728 voxels, and within them
    mask[:, 1, 6:8, 6:8, 6:8] = 1  # 8, and
    mask[1, 0, 12, 12, 12] = 1  # one voxel in the second visit only
    image = np.stack([np.indices((20, 20, 20)).astype(np.float16)] * 2)  # (V, 3, D, H, W): d, h and w
    patient = Patient("A", ("0", "1"), (keep({"of": "a"}, lambda: entry_of(image, mask, (1, 1, 1)), tmp_path),))
    data = replace(DATA, modalities=("a", "b", "c"), regions=("et", "tc", "wt"), patch=(3, 3, 3), window=1)
    train = replace(TRAIN, foreground=1, augment=AugmentConfig())
    made = draw([Pick(patient, rng(seed), 1.0) for seed in range(900)], data, train, reading).to(CPU)
    middle = made.image[..., 1, 1, 1].reshape(900, 3).long().tolist()
    places = Counter(map(tuple, middle))
    small = sum(places[place] for place in np.ndindex(20, 20, 20) if mask[0, 1][place])
    # Half of the samples are of a visit with three regions, half of one with two.
    assert places[12, 12, 12] == pytest.approx(900 * (1 / 6 + 1 / 3 / 1728 / 2), abs=45)
    assert small == pytest.approx(900 * (1 / 6 + 1 / 4), abs=60)
    assert all(mask[0, 2][place] for place in places)


def test_nothing_of_a_mask_is_drawn_from_anywhere(tmp_path):
    """A patient without a tumour has no region to draw."""
    image = np.ones((1, 1, 6, 6, 6), np.float16)
    entry = entry_of(image, np.zeros((1, 2, 6, 6, 6), np.uint8), (1, 1, 1))
    patient = Patient("A", ("0",), (keep({"of": "none"}, lambda: entry, tmp_path),))
    data = replace(DATA, modalities=("t1",), patch=(3, 3, 3))
    train = replace(TRAIN, foreground=1)
    drawn = [draw([Pick(patient, rng(), 1.0)], data, replace(train, foreground_by=by), "visits") for by in BY]
    assert torch.equal(drawn[0].to(CPU).target, drawn[1].to(CPU).target)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: did not run")
@pytest.mark.parametrize("reading", READINGS, ids=["visits", "series", "grade"])
def test_a_gpu_makes_the_same_batches(patients, reading):
    """But for noise, whose generator is each device's own; copied from pinned memory while others are drawn."""
    source = Source(patients, DATA, replace(TRAIN, augment=replace(ALL, noise=0)), reading, (0, "a", 1))
    for here, there in zip(batches(source, 4, CPU), batches(source, 4, torch.device("cuda"), 3), strict=True):
        assert there.image.is_cuda
        assert_close(parts(here), [part.cpu() for part in parts(there)], rtol=0, atol=1e-3)
