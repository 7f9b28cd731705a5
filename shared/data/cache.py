"""Prepare scans once, as arrays that training memory-maps.

An entry holds the scans that must share a grid: one visit, or for series all visits of a patient. Its folder holds
`image.npy`, `mask.npy`, `foreground.npy` (see `Entry`) and `entry.json`, which says whose it is. Entries are never
changed; the folder may be deleted at any time.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shared.config import DataConfig
from shared.data.cases import Case
from shared.data.labels import region_values, regions_of
from shared.data.volume import DataError, Floats, Volume, read_volume
from shared.files import sync

VERSION = 1
"""Of what an entry holds; another number prepares everything again."""
FOREGROUND = 10_000
"""Most foreground voxels kept in an entry."""
TOLERANCE = 0.01
"""Spacings that differ by this fraction or less are the same."""

APART = 0.5
"""Affines of a case's scans may differ by so much, in mm: header rounding, not another place."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """One prepared entry, memory-mapped. (D, H, W) are the RAS axes (X, Y, Z), cropped to the brain."""

    image: npt.NDArray[np.float16]
    """(V, C, D, H, W); each volume has mean 0 and deviation 1 over its non-zero voxels; zero stays zero."""
    mask: Bytes
    """(V, R, D, H, W), 0 or 1."""
    foreground: npt.NDArray[np.int32]
    """(K, 4): (v, d, h, w) of voxels in any region, by visit; an even share of FOREGROUND a visit at most."""


def prepare(cases: Sequence[Case], data: DataConfig, cache: Path) -> Path:
    """Give the folder of the entry of `cases`, one patient's visits in order, and make it if it is not there.

    An entry appears by one rename, whole: a killed process leaves only a hidden folder that nobody reads, and of two
    processes that make the same entry the later one drops its copy.
    Raises DataError: missing_modality, missing_mask, shape_mismatch, those of `read_volume` and `regions_of`.
    """
    identity = _identity(cases, data)
    entry = cache / sha256(identity.encode()).hexdigest()
    if entry.is_dir():
        return entry
    image, mask = _arrays(cases, data)
    cache.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=cache))
    try:
        for name, array in (("image", image), ("mask", mask), ("foreground", _foreground(mask))):
            with (half / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        (half / "entry.json").write_text(identity + "\n", encoding="utf-8")
        sync(half)
        half.rename(entry)
        sync(cache)
    except OSError:
        if not entry.is_dir():  # else another process was first, with the same bytes
            raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return entry


def open_entry(entry: Path) -> Entry:
    """Memory-map what `prepare` made; only voxels that are used are read."""
    image, mask, foreground = (
        np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("image", "mask", "foreground")
    )
    return Entry(image, mask, foreground)


def resample(array: npt.NDArray[Any], spacing: Sequence[float], target: float, order: int) -> npt.NDArray[Any]:
    """Resample (X, Y, Z) from `spacing` to `target` mm; order 1 is linear, 0 nearest.

    The outer faces of the volume stay where they are, so that halving is the mean of pairs and the size in mm stays
    within half a new voxel.
    """
    scale = [target / edge for edge in spacing]
    shape = tuple(max(1, round(size / step)) for size, step in zip(array.shape, scale, strict=True))
    offset = [(step - 1) / 2 for step in scale]  # from voxel centres to faces and back
    resampled: npt.NDArray[Any] = ndimage.affine_transform(
        array, np.array(scale), offset=offset, output_shape=shape, order=order, mode="nearest"
    )
    return resampled


def scan_files(case: Case, data: DataConfig) -> list[Path]:
    """The case's images in the order of `data.modalities`, then its mask.

    Raises DataError: missing_modality, missing_mask.
    """
    missing = [modality for modality in data.modalities if modality not in case.images]
    if missing:
        raise DataError(
            "missing_modality",
            f"{case.patient} visit {case.visit}: no {', '.join(missing)}; has {', '.join(case.images) or 'no image'}; "
            "add the file, or leave the patient out",
        )
    if case.mask is None:
        raise DataError("missing_mask", f"{case.patient} visit {case.visit}: no mask; add the segmentation's file")
    return [*(case.images[modality] for modality in data.modalities), case.mask]


def _identity(cases: Sequence[Case], data: DataConfig) -> str:
    """What an entry depends on, as JSON.

    A file is its name, size and time of change: in deployment every message is a new process, which would spend
    seconds to minutes to hash what the scans hold. A copied folder is prepared again; a moved one is not.
    """
    visits = []
    for case in cases:
        try:
            states = [(path.name, path.stat()) for path in scan_files(case, data)]
        except OSError as error:
            raise DataError(
                "unreadable", f"{error.filename}: {error.strerror}; look at the file and its rights"
            ) from error
        files = [[name, state.st_size, state.st_mtime_ns] for name, state in states]
        visits.append({"patient": case.patient, "visit": case.visit, "files": files})
    regions = [sorted(values) for values in region_values(cases[0].labels, data.regions)]
    scheme = cases[0].labels  # not regions alone: it also says which values are errors
    return json.dumps(
        {"version": VERSION, "visits": visits, "spacing": data.spacing, "labels": scheme, "regions": regions}
    )


def _arrays(cases: Sequence[Case], data: DataConfig) -> tuple[npt.NDArray[np.float16], Bytes]:
    """Image (V, C, D, H, W) and mask (V, R, D, H, W), on one grid, cropped to the voxels that are non-zero in any."""
    images: list[npt.NDArray[np.float16]] = []
    masks: list[Bytes] = []
    first: tuple[Path, Volume] | None = None
    brain: npt.NDArray[np.bool_] | None = None
    for case in cases:
        *paths, mask_path = scan_files(case, data)
        frame = []
        for path in paths:
            volume = read_volume(path)
            first = first or (path, volume)
            same_grid(first, path, volume)
            array = _spaced(volume.array, volume, data.spacing, order=1)
            brain = array != 0 if brain is None else brain | (array != 0)
            frame.append(_normalise(array))
        assert first is not None, "a config has one modality or more"
        images.append(np.stack(frame))
        mask = read_volume(mask_path)
        same_grid(first, mask_path, mask)
        try:
            regions = regions_of(mask.array, case.labels, data.regions)
        except DataError as error:
            raise DataError(error.code, f"{mask_path}: {error}") from error
        masks.append(np.stack([_spaced(region, mask, data.spacing, order=0) for region in regions]))
    assert brain is not None, "an entry has one case or more"
    box = _bounding_box(brain)
    return np.stack([image[:, *box] for image in images]), np.stack([mask[:, *box] for mask in masks])


def same_grid(first: tuple[Path, Volume], path: Path, volume: Volume) -> None:
    """Raise DataError, shape_mismatch or affine_mismatch, unless a scan's voxels are those of the case's first."""
    expected = first[1]
    if volume.array.shape != expected.array.shape or not np.allclose(volume.spacing, expected.spacing, TOLERANCE, 0):
        raise DataError(
            "shape_mismatch",
            f"{path}: {_grid(volume)}, but {first[0].name} {_grid(expected)}; register a patient's scans to one grid",
        )
    apart = float(np.abs(volume.affine - expected.affine).max())
    if apart > APART:
        raise DataError(
            "affine_mismatch",
            f"{path}: lies elsewhere than {first[0].name}, by {apart:.3g} mm; register a patient's scans to one grid",
        )


def _grid(volume: Volume) -> str:
    return (
        "x".join(map(str, volume.array.shape)) + " voxels of " + "x".join(f"{mm:.3g}" for mm in volume.spacing) + " mm"
    )


def _spaced(array: npt.NDArray[Any], volume: Volume, target: float | None, order: int) -> npt.NDArray[Any]:
    if target is None or np.allclose(volume.spacing, target, TOLERANCE, 0):
        return array
    return resample(array, volume.spacing, target, order)


def _normalise(array: Floats) -> npt.NDArray[np.float16]:
    """Z-score over non-zero voxels; a volume of one value becomes zero."""
    brain = array != 0
    values = array[brain].astype(np.float64)
    scored = np.zeros(array.shape, np.float16)
    if values.size:
        scored[brain] = (values - values.mean()) / (values.std() or 1.0)
    return scored


def _bounding_box(brain: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box around what is true in (X, Y, Z); the whole volume where nothing is."""
    spans = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(span[0]), int(span[-1]) + 1) if span.size else slice(None) for span in spans)


def _foreground(mask: Bytes) -> npt.NDArray[np.int32]:
    """(K, 4) voxels of any region: where there are more, those whose index hashes lowest, the same on every machine."""
    share = FOREGROUND // len(mask)
    kept = []
    for visit, regions in enumerate(mask):
        index = np.flatnonzero(regions.any(axis=0))
        if index.size > share:
            hashed = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, modulo 2**64
            index = np.sort(index[np.argsort(hashed, kind="stable")[:share]])
        place = np.stack(np.unravel_index(index, regions.shape[1:]), axis=1)
        kept.append(np.insert(place, 0, visit, axis=1))
    return np.concatenate(kept).astype(np.int32)
