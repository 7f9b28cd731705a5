"""How bright parts of a tumour are in each image, and what is kept of an image to compare it with the others.

MR units are arbitrary, so brightness is a rank: the share of the brain outside the mask that is darker, 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gliofed.client.doctor.pictures import Marks
from gliofed.shared.data.labels import LABELS
from gliofed.shared.data.volume import Floats, Volume

COARSE = 3.0
"""Images are compared on samples about so many mm apart."""
APART = 9.0
"""Differences over so many mm show tissue, and hardly the coil's sensitivity, which changes slowly."""
FEW = 20
"""Fewest voxels of a label, and samples of a brain, of which a rank says something."""
ENOUGH = 1000
"""Fewest differences that are correlated."""
STRIPPED = 0.9
"""Largest share of an image that is not zero, where that is to be a brain."""


@dataclass(frozen=True)
class Labels:
    """The voxels of a mask that marks some, cut out."""

    box: tuple[slice, slice, slice]
    """Where."""
    values: npt.NDArray[np.uint8]
    """(X, Y, Z) of the box."""
    surface: Mapping[int, float]
    """Share of a label's voxels that touch what is not marked, of each label that has not few."""

    @classmethod
    def of(cls, mask: Volume) -> "Labels | None":
        """Cut out a mask (X, Y, Z) whose values are right; None if nothing is marked."""
        whole = np.rint(mask.array).astype(np.uint8)
        if not whole.any():
            return None
        (box,) = ndimage.find_objects((whole != 0).view(np.uint8))
        values = whole[box].copy()
        outer = (values != 0) & ~ndimage.binary_erosion(values != 0)
        counts = np.bincount(values.ravel())
        there = [label for label, count in enumerate(counts) if label and count >= FEW]
        return cls(box, values, {label: float(outer[values == label].mean()) for label in there})


@dataclass
class Contrasts:
    """What a case's images are compared by: a megabyte each, so that none is read twice."""

    scheme: str
    shape: tuple[int, ...]
    """Of the mask, or else of the first image; an image of another shape is an error, and not compared."""
    spacing: tuple[float, float, float]
    labels: Labels | None = None
    samples: dict[str, Floats] = field(default_factory=dict)
    """By modality."""
    ranks: dict[str, dict[int, float]] = field(default_factory=dict)
    """By modality and label: rank of the label's median. Modalities that show more than a brain have none."""
    lesion: float | None = None
    """Rank in FLAIR of the whole tumour's median."""
    sides: tuple[float, float] | None = None
    """The same of what the mask marks on one side alone, and of the place across the midline, which it doesn't mark."""

    def __post_init__(self) -> None:
        self.step = [max(1, round(COARSE / edge)) for edge in self.spacing]
        self._every = tuple(slice(None, None, step) for step in self.step)
        marked = np.zeros(self.shape, bool)
        if self.labels is not None:
            marked[self.labels.box] = self.labels.values != 0
        self.marked: Marks = marked[self._every].copy()

    def add(self, name: str, array: Floats) -> None:
        """Look at an image (X, Y, Z)."""
        if array.shape != self.shape:
            return
        sample = self.samples[name] = array[self._every].copy()
        brain = np.sort(sample[(sample != 0) & ~self.marked])
        if self.labels is None or brain.size < FEW or np.mean(sample != 0) > STRIPPED:
            return
        inside, values = array[self.labels.box], self.labels.values
        self.ranks[name] = {label: rank(inside[values == label], brain) for label in self.labels.surface}
        if name == "flair":
            tumour = np.zeros(self.shape, bool)
            tumour[self.labels.box] = np.isin(values, sorted(LABELS[self.scheme].get("wt", ())))
            across = tumour[::-1]
            all_of_it, here, there = (
                array[place & (array != 0)] for place in (tumour, tumour & ~across, across & ~tumour)
            )
            if all_of_it.size >= FEW:
                self.lesion = rank(all_of_it, brain)
            if here.size >= FEW and there.size >= FEW:
                self.sides = rank(here, brain), rank(there, brain)

    def correlation(self, names: tuple[str, ...]) -> npt.NDArray[np.float64] | None:
        """Correlation between images, (N, N), of what their ranks change by over `APART`; None where that is too few.

        The mask has no part in it.
        """
        inside = np.logical_and.reduce([self.samples[name] != 0 for name in names])
        changes = []
        for name in names:
            sample = self.samples[name]
            ranked = np.full(sample.shape, np.nan)
            ranked[inside] = np.searchsorted(np.sort(sample[inside]), sample[inside])
            changes.append(np.concatenate([self._changes(ranked, axis) for axis in range(3)]))
        both = np.array(changes)
        both = both[:, np.isfinite(both[0])]
        if both.shape[1] < ENOUGH or not both.std(1).all():
            return None
        correlation: npt.NDArray[np.float64] = np.corrcoef(both)
        return correlation

    def _changes(self, ranked: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        places = np.moveaxis(ranked, axis, 0)
        apart = max(1, round(APART / (self.step[axis] * self.spacing[axis])))
        return (places[apart:] - places[:-apart]).ravel()

    def brightest(self, name: str, other: str, share: float) -> float | None:
        """Median rank in `other` of the `share` that is brightest in `name`, outside the mask."""
        first, second = self.samples[name], self.samples[other]
        inside = (first != 0) & (second != 0) & ~self.marked
        if inside.sum() * share < FEW:
            return None
        top = first[inside] >= np.quantile(first[inside].astype(np.float64), 1 - share)
        return rank(second[inside][top], np.sort(second[inside]))


def rank(values: Floats, brain: Floats) -> float:
    """Share of `brain`, sorted, that is darker than the median of `values`.

    >>> rank(np.float32([5, 7, 90]), np.float32([1, 2, 6, 8]))
    0.75
    """
    middle = np.median(values.astype(np.float64))  # the mean of two float32 of 3e38 is infinite
    return float(np.searchsorted(brain, middle) / brain.size)
