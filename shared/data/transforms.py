"""What is made of a volume's voxels: resampled, scaled, cut."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from gliofed.shared.data.volume import Floats

FOREGROUND = 10_000
"""Most foreground voxels kept of an entry."""
EPSILON = 1e-8
"""Added to the range in `min_max`, so that a volume of one value becomes 0."""

Half = npt.NDArray[np.float16]


def resample(
    array: npt.NDArray[Any],
    spacing: Sequence[float],
    target: Sequence[float],
    order: int,
    shape: Sequence[int] | None = None,
) -> npt.NDArray[Any]:
    """Resample (X, Y, Z) from `spacing` to `target`, mm along each axis; order 1 is linear, 0 nearest.

    The outer faces of the volume stay where they are, so that halving is the mean of pairs and the size in mm stays
    within half a new voxel. `shape`, where it is given, is that of the result: on the way back it is known.
    """
    scale = [new / old for new, old in zip(target, spacing, strict=True)]
    if shape is None:
        shape = resampled_shape(array.shape, spacing, target)
    offset = [(step - 1) / 2 for step in scale]  # from voxel centres to faces and back
    resampled: npt.NDArray[Any] = ndimage.affine_transform(
        array, np.array(scale), offset=offset, output_shape=tuple(shape), order=order, mode="nearest"
    )
    return resampled


def resampled_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """The size of (X, Y, Z) once it is resampled."""
    return tuple(max(1, round(size / (new / old))) for size, old, new in zip(shape, spacing, target, strict=True))


def z_score(array: Floats) -> Half:
    """Mean 0 and deviation 1 over non-zero voxels; zero stays zero, and a volume of one value becomes zero."""
    brain = array != 0
    values = array[brain].astype(np.float64)
    scored = np.zeros(array.shape, np.float16)
    if values.size:
        scored[brain] = (values - values.mean()) / (values.std() or 1.0)
    return scored


def min_max(array: Floats) -> Half:
    """Scale to 0..1 over the whole volume: (x - min) / (max - min + 1e-8), as the original CNN-LSTM does.

    >>> min_max(np.array([[[10.0, 20.0, 30.0]]], dtype=np.float32)).tolist()
    [[[0.0, 0.5, 1.0]]]
    """
    low, high = float(array.min()), float(array.max())
    return ((array - low) / (high - low + EPSILON)).astype(np.float16)


def central_block(array: Half, size: Sequence[int]) -> Half:
    """Cut the middle (D, H, W) `size` out of a volume; a smaller one gets zeros on both sides.

    The first voxel is (axis - size) // 2, so that a series of 155 slices gives the slices 61 to 92 for a size of 32.
    """
    block = np.zeros(tuple(size), array.dtype)
    source, place = [], []
    for have, want in zip(array.shape, size, strict=True):
        skip, pad = max(0, (have - want) // 2), max(0, (want - have) // 2)
        source.append(slice(skip, skip + min(have, want)))
        place.append(slice(pad, pad + min(have, want)))
    block[tuple(place)] = array[tuple(source)]
    return block


def bounding_box(brain: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box around what is true in (X, Y, Z); the whole volume where nothing is."""
    spans = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(span[0]), int(span[-1]) + 1) if span.size else slice(None) for span in spans)


def foreground_voxels(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """(K, 4) voxels (v, d, h, w) of any region of a mask (V, R, D, H, W), by visit; FOREGROUND / V a visit at most.

    Where there are more, those whose index hashes lowest, the same on every machine.
    """
    kept = [np.insert(_some(regions.any(axis=0), len(mask)), 0, visit, axis=1) for visit, regions in enumerate(mask)]
    return np.concatenate(kept).astype(np.int32)


def region_voxels(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """(K, 5) voxels (v, r, d, h, w) of each region r, which `foreground_voxels` may have none of where it is small."""
    kept = [
        np.insert(_some(region != 0, len(mask)), 0, [[visit], [number]], axis=1)
        for visit, regions in enumerate(mask)
        for number, region in enumerate(regions)
    ]
    return np.concatenate(kept).astype(np.int32)


def _some(inside: npt.NDArray[np.bool_], visits: int) -> npt.NDArray[np.int64]:
    """(K, 3) voxels of one visit's mask (D, H, W), its share of FOREGROUND at most."""
    share, index = FOREGROUND // visits, np.flatnonzero(inside)
    if index.size > share:
        hashed = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, modulo 2**64
        index = np.sort(index[np.argsort(hashed, kind="stable")[:share]])
    return np.stack(np.unravel_index(index, inside.shape), axis=1)
