"""Batches of prepared patients, and whole volumes as evaluation reads them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliofed.shared.config import DataConfig
from gliofed.shared.data.cache import open_entry
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
    """(B, C), or (B, T, C) for series, bool: which modalities there are; with a label, or data.missing=mask."""
    weight: Tensor | None = None
    """(B,): what each sample's loss counts; None: 1."""
    spacing: tuple[float, float, float] | None = None
    """Edges of a voxel along D, H and W, mm; of whole volumes only."""
    affine: npt.NDArray[np.float64] | None = None
    """(4, 4): indices (d, h, w) to mm; of whole volumes with masks only."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the model is called with."""
        return (self.image,) if self.present is None else (self.image, self.present)

    def to(self, device: torch.device) -> "Batch":
        """The same on `device`; out of pinned memory a GPU copies it while others work."""
        move = partial(Tensor.to, device=device, non_blocking=device.type == "cuda")
        present, weight = (None if part is None else move(part) for part in (self.present, self.weight))
        return Batch(move(self.image), move(self.target), present, weight, self.spacing, self.affine)


def whole(patient: Patient, data: DataConfig, reading: Reading) -> Iterator[Batch]:
    """Yield the patient's whole volumes, each as a batch of one.

    Series come in windows of `data.window` visits, each visit once, so that the last window may be shorter; the visit
    at place k of any window has k visits before it, there as well.
    """
    if isinstance(reading, Label):
        assert patient.value is not None, "the cohort was opened for this label"
        entry = open_entry(patient.entries[0])
        target, present = torch.tensor([[reading.number(patient.value)]]), torch.from_numpy(np.array(entry.present))
        yield Batch(torch.from_numpy(np.array(entry.image)).float(), target, present)
        return
    length = data.window if reading == "series" else 1
    for path in patient.entries:
        entry = open_entry(path)
        for start in range(0, len(entry.image), length):
            arrays = (entry.image, entry.mask, entry.present)
            parts = [torch.from_numpy(np.array(array[start : start + length])) for array in arrays]
            image, target, there = [part[None] for part in parts] if reading == "series" else parts
            known = there if data.missing == "mask" else None
            yield Batch(image.float(), target.float(), known, spacing=entry.spacing, affine=entry.affine)


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
