"""Batches that training and evaluation read from prepared patients."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliofed.shared.config import DataConfig, TrainConfig
from gliofed.shared.data.augment import change_intensity, draw_geometry, drop_modalities
from gliofed.shared.data.cache import Entry, open_entry
from gliofed.shared.data.dataset import Patient, Reading
from gliofed.shared.tasks import Label


@dataclass(frozen=True)
class Batch:
    """Images and what a model should say of them, float32, RAS."""

    image: Tensor
    """(B, C, D, H, W), or (B, T, C, D, H, W) for series."""
    target: Tensor
    """The same with R regions for C, 0 or 1; of a label (B, 1), its number."""
    present: Tensor | None = None
    """(B, C), bool: which modalities there are; with a label."""
    weight: Tensor | None = None
    """(B,): what each sample's loss counts; None: 1."""
    spacing: tuple[float, float, float] | None = None
    """Edges of a voxel along D, H and W, mm; of whole volumes only."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the model is called with."""
        return (self.image,) if self.present is None else (self.image, self.present)

    def to(self, device: torch.device) -> "Batch":
        """The same on `device`."""
        present, weight = (None if part is None else part.to(device) for part in (self.present, self.weight))
        return Batch(self.image.to(device), self.target.to(device), present, weight, self.spacing)


def batches(
    patients: Sequence[Patient], data: DataConfig, train: TrainConfig, rng: np.random.Generator, reading: Reading
) -> Iterator[Batch]:
    """Yield batches without end: patients in shuffled passes, a batch may span two; of each patient one sample."""
    assert patients, "a cohort has one training patient or more"
    weights = class_weights(patients, train.class_weights, reading)
    order: list[int] = []
    while True:
        while len(order) < train.batch:
            order.extend(rng.permutation(len(patients)).tolist())
        chosen, order = order[: train.batch], order[train.batch :]
        yield _collate([_sample(patients[index], data, train, rng, reading, weights) for index in chosen])


def in_random_order(
    streams: Sequence[tuple[Iterator[Batch], int]], batch: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield the first samples of several endless streams of batches, so many of each, mixed, in batches of `batch`.

    Their numbers must add up to whole batches. No more than a batch of each stream is in memory.
    """
    singles = [(sample for each in stream for sample in _samples(each)) for stream, _ in streams]
    places = np.repeat(np.arange(len(streams)), [number for _, number in streams])
    for chosen in rng.permutation(places).reshape(-1, batch):
        yield _collate([next(singles[place]) for place in chosen])


def of_one(
    patient: Patient, data: DataConfig, train: TrainConfig, rng: np.random.Generator, reading: Reading, count: int
) -> Batch:
    """Draw `count` samples of one patient as a batch, in which nothing comes from other patients."""
    weights = class_weights([patient], train.class_weights, reading)
    assert not weights or train.class_weights != "balanced", "balancing counts patients"
    return _collate([_sample(patient, data, train, rng, reading, weights) for _ in range(count)])


def _sample(
    patient: Patient,
    data: DataConfig,
    train: TrainConfig,
    rng: np.random.Generator,
    reading: Reading,
    weights: Mapping[str | None, float],
) -> Batch:
    """One sample to train on, without a batch's axis; `weights` are those of the classes."""
    if isinstance(reading, Label):
        return _mirrored(patient, train, rng, reading, weights.get(patient.value, 1.0))
    return Batch(*patch(patient, data, train, rng, reading == "series"))


def whole(patient: Patient, data: DataConfig, reading: Reading) -> Iterator[Batch]:
    """Yield the patient's whole volumes, each as a batch of one.

    Series come in windows of `data.window` visits, each visit once, so that the last window may be shorter; the visit
    at place k of any window has k visits before it, there as well.
    """
    if isinstance(reading, Label):
        yield _collate([_block(patient, open_entry(patient.entries[0]), reading)])
        return
    length = data.window if reading == "series" else 1
    for path in patient.entries:
        entry = open_entry(path)
        for start in range(0, len(entry.image), length):
            parts = (np.array(array[start : start + length]) for array in (entry.image, entry.mask))
            image, target = (torch.from_numpy(part).float() for part in parts)
            if reading == "series":
                image, target = image[None], target[None]
            yield Batch(image, target, spacing=entry.spacing)


def class_weights(
    patients: Sequence[Patient], given: str | tuple[float, ...] | None, reading: Reading
) -> dict[str | None, float]:
    """Return what the loss of a patient of each class counts; balanced: all classes the same in sum, 1 on average.

    A site that has one class only has nothing to balance; what has no classes, as a mask, has no weights.

    >>> from gliofed.shared.tasks.grading import GRADE
    >>> class_weights([Patient("a", (), (), "HGG")] * 3 + [Patient("b", (), (), "LGG")], "balanced", GRADE)
    {'HGG': 0.6666666666666666, 'LGG': 2.0}
    """
    classes = reading.classes if isinstance(reading, Label) else ()
    if classes and isinstance(given, tuple):
        return dict(zip(classes, given, strict=True))
    counts = Counter(patient.value for patient in patients)
    if not classes or given is None or len(counts) < 2:
        return dict.fromkeys(classes, 1.0)
    return {name: len(patients) / (len(counts) * count) for name, count in counts.items()}


def patch(
    patient: Patient, data: DataConfig, train: TrainConfig, rng: np.random.Generator, series: bool
) -> tuple[Tensor, Tensor]:
    """Cut image (C, *data.patch) and target (R, *data.patch) of a random visit; series: (T, ...) of a random window.

    With probability `train.foreground` centred on a random foreground voxel of those visits, as far as the volume
    reaches; else, or where they have none, anywhere. A smaller volume is padded with zeros at its end. Then changed as
    `train.augment` says; a turned patch is filled from what lies around it.
    """
    entry = open_entry(patient.entries[rng.integers(len(patient.entries))])
    length = data.window if series else 1
    start = int(rng.integers(len(entry.image) - length + 1))
    corner = _corner(entry, start, length, data.patch, rng.random() < train.foreground, rng)
    geometry = draw_geometry(train.augment, entry.spacing, rng)
    block = geometry.block(data.patch)
    corner = corner - np.subtract(block, data.patch) // 2
    image, target = (_cut(array[start : start + length], corner, block) for array in (entry.image, entry.mask))
    image, target = geometry.patch(image, data.patch), geometry.patch(target, data.patch, nearest=True)
    image = change_intensity(image, train.augment, rng)
    image, _ = drop_modalities(image, entry.present, train.augment, rng)
    return (image, target) if series else (image[0], target[0])


def _mirrored(patient: Patient, train: TrainConfig, rng: np.random.Generator, label: Label, weight: float) -> Batch:
    """The whole block, mirrored along each axis half of the time: a label has no side, and patients are few."""
    changes = replace(train.augment, flip=0.0)  # mirrored it is already
    entry = open_entry(patient.entries[0])
    batch = _block(patient, entry, label)
    axes = [axis for axis in (1, 2, 3) if rng.random() < 0.5]
    image = batch.image.flip(axes)
    image = draw_geometry(changes, entry.spacing, rng).patch(image, entry.image.shape[2:])
    image, present = drop_modalities(change_intensity(image, changes, rng), entry.present, changes, rng)
    return replace(batch, image=image, present=torch.tensor(present), weight=torch.tensor(weight))


def _block(patient: Patient, entry: Entry, label: Label) -> Batch:
    """One patient's block and value, without a batch's axis."""
    assert patient.value is not None, "the cohort was opened for this label"
    image = torch.from_numpy(np.array(entry.image[0])).float()
    return Batch(image, torch.tensor([label.number(patient.value)]), torch.tensor(entry.present))


def _collate(samples: Sequence[Batch]) -> Batch:
    """Stack samples; a part is in all of them or in none."""
    parts = {name: [getattr(sample, name) for sample in samples] for name in ("image", "target", "present", "weight")}
    stacked: dict[str, Any] = {name: torch.stack(each) for name, each in parts.items() if each[0] is not None}
    return Batch(**stacked)


def _samples(batch: Batch) -> Iterator[Batch]:
    """Inverse of `_collate`."""
    for place in range(len(batch.image)):
        parts = (batch.image, batch.target, batch.present, batch.weight)
        image, target, present, weight = (None if part is None else part[place] for part in parts)
        assert image is not None and target is not None, "every batch has both"
        yield Batch(image, target, present, weight)


def _corner(
    entry: Entry, start: int, length: int, size: tuple[int, int, int], centred: bool, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Lowest voxel (d, h, w) of a patch that lies in the volume, or 0 where the volume is smaller."""
    room = np.maximum(np.array(entry.image.shape[2:]) - size, 0)
    first, last = np.searchsorted(entry.foreground[:, 0], [start, start + length])
    corner: npt.NDArray[np.int64]
    if centred and last > first:
        centre = entry.foreground[rng.integers(first, last), 1:].astype(np.int64)
        corner = np.clip(centre - np.array(size) // 2, 0, room)
    else:
        corner = rng.integers(0, room + 1)
    return corner


def _cut(array: npt.NDArray[Any], corner: npt.NDArray[np.int64], size: tuple[int, int, int]) -> Tensor:
    """Copy (V, C, *size) from the corner on, float32; what lies outside the volume is 0."""
    low = np.maximum(corner, 0)
    part = array[:, :, *(slice(first, max(0, last)) for first, last in zip(low, corner + size, strict=True))]
    padded = np.zeros((*array.shape[:2], *size), array.dtype)
    place = zip(low - corner, part.shape[2:], strict=True)
    padded[:, :, *(slice(first, first + edge) for first, edge in place)] = part
    return torch.from_numpy(padded).float()  # PyTorch reads fp16 faster than numpy
