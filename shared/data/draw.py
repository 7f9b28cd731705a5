"""Samples that training takes: drawn from a few keys alone, cut ahead by threads, changed where the model is."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliofed.shared.config import DataConfig, TrainConfig
from gliofed.shared.data.ahead import ahead
from gliofed.shared.data.augment import Changes, Size, change_intensity, draw_changes, turn
from gliofed.shared.data.cache import Entry, open_entry
from gliofed.shared.data.dataset import Patient, Reading
from gliofed.shared.data.samples import Batch, class_weights
from gliofed.shared.seeding import generator
from gliofed.shared.tasks import Label

Batches = Generator[Batch, None, None]
"""Whoever stops early closes them, for threads may draw ahead."""


@dataclass(frozen=True)
class Drawn:
    """Samples as they were cut, with what is still to be done to them."""

    blocks: Batch
    """Images (B, T, C, *block), fp16, and masks (B, T, R, *block), uint8, or labels; T is 1 without a series."""
    size: Size
    """Of the patches in the middle of the blocks."""
    changes: Sequence[Changes]
    """Of each sample."""
    reading: Reading

    def to(self, device: torch.device) -> Batch:
        """The batch, made on `device`."""
        there = self.blocks.to(device)
        label = isinstance(self.reading, Label)
        image, *masks = turn([there.image] if label else [there.image, there.target], self.size, self.changes)
        image = change_intensity(image, self.changes)
        if self.reading != "series":
            image, masks = image[:, 0], [mask[:, 0] for mask in masks]
        return replace(there, image=image, target=there.target if label else masks[0])


class Pick(NamedTuple):
    """One sample to be drawn."""

    patient: Patient
    rng: np.random.Generator
    """All of the sample follows from it."""
    weight: float
    """What its loss counts."""


@dataclass(frozen=True)
class Source:
    """A site's training patients in a round, and how they are drawn."""

    patients: Sequence[Patient]
    data: DataConfig
    train: TrainConfig
    reading: Reading
    key: tuple[str | int, ...]
    """Where all randomness comes from: the run's seed, the site and the round."""

    def __post_init__(self) -> None:
        assert self.patients, "a cohort has one training patient or more"

    def pick(self, index: int) -> Pick:
        """Sample `index` of the round, whichever was drawn before: shuffled passes take one of each patient."""
        number, place = divmod(index, len(self.patients))
        order = generator(*self.key, "pass", number).permutation(len(self.patients))
        patient = self.patients[order[place]]
        return Pick(patient, generator(*self.key, "sample", index), self._weights.get(patient.value, 1.0))

    @cached_property
    def _weights(self) -> dict[str | None, float]:
        return class_weights(self.patients, self.train.class_weights, self.reading)


def batches(source: Source, steps: int, device: torch.device, workers: int = 0) -> Batches:
    """Yield the round's batches on `device`; one may span two passes. `workers` threads draw ahead."""
    size = source.train.batch
    lots = ([source.pick(step * size + place) for place in range(size)] for step in range(steps))
    return _made(source, lots, device, workers)


def in_random_order(
    sources: Sequence[tuple[Source, int]], rng: np.random.Generator, device: torch.device, workers: int = 0
) -> Batches:
    """Yield batches on `device` of the first samples of several sources, so many of each, mixed.

    Their numbers must add up to whole batches. The sources have one run's settings.
    """
    first, _ = sources[0]
    indices = [count() for _ in sources]
    places = np.repeat(np.arange(len(sources)), [number for _, number in sources])
    order = rng.permutation(places).reshape(-1, first.train.batch)
    lots = ([sources[place][0].pick(next(indices[place])) for place in chosen] for chosen in order)
    return _made(first, lots, device, workers)


def of_one(
    patient: Patient,
    data: DataConfig,
    train: TrainConfig,
    rng: np.random.Generator,
    reading: Reading,
    number: int,
    pinned: bool = False,
) -> Drawn:
    """Draw `number` samples of one patient as a batch, in which nothing comes from other patients."""
    weights = class_weights([patient], train.class_weights, reading)
    assert not weights or train.class_weights != "balanced", "balancing counts patients"
    picks = [Pick(patient, own, weights.get(patient.value, 1.0)) for own in rng.spawn(number)]
    return draw(picks, data, train, reading, pinned)


def draw(picks: Sequence[Pick], data: DataConfig, train: TrainConfig, reading: Reading, pinned: bool = False) -> Drawn:
    """Draw samples of random visits, or for series of random windows; in `pinned` memory, a GPU copies by itself.

    A patch is, with probability `train.foreground`, centred on a random foreground voxel of those visits, as far as the
    volume reaches; else, or where they have none, anywhere. With `train.foreground_by` region, the voxel is of a region
    that is drawn first, among those that the visits have. A smaller volume is padded with zeros at its end. With a
    label a sample is the whole block, mirrored along each axis half of the time: a label has no side, and patients are
    few. All blocks of a batch have the size of the largest, which a turned patch needs to be filled to its corners.
    """
    label = reading if isinstance(reading, Label) else None
    places = [_place(pick, data, train, reading) for pick in picks]
    changes = [place.changes for place in places]
    size = block = places[0].size
    if label is None:
        depth, height, width = map(max, zip(*(each.block(size) for each in changes), strict=True))
        block = depth, height, width
    image = _cut([place.image for place in places], places, block, torch.float16, pinned)
    for row, each in enumerate(changes):
        image[row].numpy()[:, list(each.dropped)] = 0
    left = torch.from_numpy(np.stack([place.left for place in places]))
    left = left if reading == "series" else left[:, 0]
    if label is None:
        present = left if data.missing == "mask" else None
        blocks = Batch(image, _cut([place.mask for place in places], places, block, torch.uint8, pinned), present)
    else:
        values = [[label.number(str(pick.patient.value))] for pick in picks]
        blocks = Batch(image, torch.tensor(values), left, torch.tensor([pick.weight for pick in picks]))
    return Drawn(blocks, size, changes, reading)


class _Place(NamedTuple):
    """Where a sample is cut, and what becomes of it."""

    image: npt.NDArray[np.float16]
    """(T, C, D, H, W), of whole volumes."""
    mask: npt.NDArray[np.uint8]
    corner: npt.NDArray[np.int64]
    """Lowest voxel of the patch."""
    size: Size
    changes: Changes
    left: npt.NDArray[np.bool_]
    """(T, C): which modalities there are, but for those that are left out."""


def _place(pick: Pick, data: DataConfig, train: TrainConfig, reading: Reading) -> _Place:
    patient, rng, _ = pick
    label, length = isinstance(reading, Label), data.window if reading == "series" else 1
    entry = open_entry(patient.entries[rng.integers(len(patient.entries))])
    visits = slice(start := int(rng.integers(len(entry.image) - length + 1)), start + length)
    depth, height, width = entry.image.shape[2:] if label else data.patch
    centred = rng.random() < train.foreground
    corner = _corner(entry, visits, (depth, height, width), train.foreground_by if centred else None, rng)
    augment = replace(train.augment, flip=0.5) if label else train.augment
    may_drop = [name in (augment.dropout_of or data.modalities) for name in data.modalities]
    changes = draw_changes(augment, entry.spacing, entry.present[visits], rng, may_drop)
    left = entry.present[visits].copy()
    left[:, list(changes.dropped)] = False
    return _Place(entry.image[visits], entry.mask[visits], corner, (depth, height, width), changes, left)


def _corner(
    entry: Entry, visits: slice, size: Size, centred: str | None, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Lowest voxel (d, h, w) of a patch that lies in the volume, or 0 where the volume is smaller.

    `centred` is `train.foreground_by`, or None for a patch from anywhere.
    """
    room = np.maximum(np.array(entry.image.shape[2:]) - size, 0)
    voxels = entry.by_region if centred == "region" else entry.foreground
    first, last = np.searchsorted(voxels[:, 0], [visits.start, visits.stop])
    corner: npt.NDArray[np.int64]
    if centred and last > first:
        voxels = voxels[first:last]
        if centred == "region":  # each counts the same, however few voxels it has
            there = np.unique(voxels[:, 1])
            voxels = voxels[voxels[:, 1] == there[rng.integers(len(there))]]
        centre = voxels[rng.integers(len(voxels)), -3:].astype(np.int64)
        corner = np.clip(centre - np.array(size) // 2, 0, room)
    else:
        corner = rng.integers(0, room + 1)
    return corner


def _cut(
    volumes: Sequence[npt.NDArray[Any]], places: Sequence[_Place], block: Size, dtype: torch.dtype, pinned: bool
) -> Tensor:
    """Copy blocks (B, T, C, *block) around the patches, mirrored; what lies outside a volume is 0.

    NumPy copies without the interpreter's lock, and in no threads of its own, as PyTorch would in each worker.
    """
    made = torch.empty((len(volumes), *volumes[0].shape[:2], *block), dtype=dtype, pin_memory=pinned)
    for volume, place, own in zip(volumes, places, made.numpy(), strict=True):
        corner = place.corner - (np.array(block) - place.size) // 2
        low = np.maximum(corner, 0)
        part = volume[:, :, *(slice(first, max(0, last)) for first, last in zip(low, corner + block, strict=True))]
        if part.shape != own.shape:
            own.fill(0)
        there = (slice(first, first + edge) for first, edge in zip(low - corner, part.shape[2:], strict=True))
        np.flip(own, place.changes.mirrored)[:, :, *there] = part
    return made


def _made(source: Source, lots: Iterable[Sequence[Pick]], device: torch.device, workers: int) -> Batches:
    pinned = device.type == "cuda"
    tasks = (partial(draw, lot, source.data, source.train, source.reading, pinned) for lot in lots)
    with closing(ahead(tasks, workers)) as drawn:
        for each in drawn:
            yield each.to(device)
