"""Scans of a case -> an entry of the cache: what each task makes of them, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine

from gliofed.shared.config import DataConfig
from gliofed.shared.data.cache import Entry, keep
from gliofed.shared.data.cases import Case
from gliofed.shared.data.labels import region_values, regions_of
from gliofed.shared.data.names import MASK
from gliofed.shared.data.transforms import (
    bounding_box,
    central_block,
    foreground_voxels,
    min_max,
    region_voxels,
    resample,
    resampled_shape,
    z_score,
)
from gliofed.shared.data.volume import DataError, Floats, Scan, Volume, read_volume

TOLERANCE = 0.01
"""Spacings that differ by this fraction or less are the same."""

APART = 0.5
"""Corners of the volumes of a case's scans may lie so far apart, mm: header rounding, not another place."""

_CORNERS = np.array([*product((0, 1), repeat=3)])


@dataclass(frozen=True)
class Images:
    """One patient's visits as a model sees them, and the way back to the grid of the scans."""

    array: npt.NDArray[np.float16]
    """(V, C, D, H, W), RAS, cropped, z-scored; zero where a modality is missing."""
    present: npt.NDArray[np.bool_]
    """(V, C): which modalities each visit has."""
    spacing: tuple[float, float, float]
    """Edges of a voxel along D, H and W, mm."""
    box: tuple[slice, ...]
    """Where `array` lies in the volume before it was cropped."""
    uncropped: tuple[int, ...]
    """(D, H, W) of that volume."""
    first: tuple[Scan, Volume]
    """The scan whose grid all have."""
    inside: list[npt.NDArray[np.bool_]]
    """Voxels (X, Y, Z), RAS, of each visit that are not zero in all of its images."""

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """(4, 4): indices (d, h, w) of `array` to mm."""
        grid = self.first[1]
        scale = np.divide(self.spacing, grid.spacing)
        corner = np.array([side.start or 0 for side in self.box])
        to_scan = np.diag([*scale, 1.0])
        to_scan[:3, 3] = scale * corner + (scale - 1) / 2  # as `resample` keeps the outer faces
        affine: npt.NDArray[np.float64] = grid.affine @ to_scan
        return affine

    def restored(self, part: Floats) -> Floats:
        """Put (D, H, W) of the cropped grid back on the grid of the scans (X, Y, Z), RAS; linear, 0 outside the box."""
        whole, grid = np.zeros(self.uncropped, np.float32), self.first[1]
        whole[self.box] = part
        if self.spacing == grid.spacing:
            return whole
        return resample(whole, self.spacing, grid.spacing, order=1, shape=grid.array.shape)


def prepare(cases: Sequence[Case], data: DataConfig, cache: Path) -> Path:
    """Give the folder of the entry for segmentation of `cases`, one patient's visits in order.

    All images and masks on one grid, cropped to the voxels that are non-zero in any image, z-scored. With
    `data.missing` = mask the channel of a modality that a visit lacks is zero, and it is noted as not present.
    Raises DataError: shape_mismatch, affine_mismatch, those of `scans_of`, `read_volume` and `regions_of`.
    """
    regions = [sorted(values) for values in region_values(cases[0].labels, data.regions)]
    visits = [_visit(case, scans_of(case, data)) for case in cases]
    what: dict[str, object] = {"visits": visits, "spacing": data.spacing, "labels": cases[0].labels}
    there = [list(images_of(case, data)) for case in cases]
    if any(len(names) < len(data.modalities) for names in there):  # else the entry is that of data.missing=refuse
        what |= {"there": there, "of": data.modalities}
    return keep(what | {"regions": regions}, lambda: _segmentation(cases, data), cache)


def prepare_block(case: Case, data: DataConfig, cache: Path) -> Path:
    """Give the folder of the entry for a label of one visit; the mask is never read.

    Each volume is scaled to 0..1 by itself, then the central block of `data.patch` voxels is cut out of the whole scan,
    so that W holds the central axial slices. A modality that the visit lacks is noted as not present.
    Raises DataError: missing_modality if there is none at all, two_files, shape_mismatch, and those of `read_volume`.
    """
    there = images_of(case, data, some=True)
    visit = _visit(case, [*there.values()])
    what: dict[str, object] = {"grading": [*there], "of": data.modalities, "block": data.patch, "spacing": data.spacing}
    return keep(what | {"visits": [visit]}, lambda: block_entry(case, data), cache)


def scans_of(case: Case, data: DataConfig) -> list[Scan]:
    """The case's images as `images_of` gives them, then its mask. Raises DataError: missing_mask, and those of that."""
    images = images_of(case, data)
    _refuse_twice(case, [MASK])
    if case.mask is None:
        raise DataError("missing_mask", f"{case.patient} visit {case.visit}: no mask; add the segmentation's file")
    return [*images.values(), case.mask]


def images_of(case: Case, data: DataConfig, some: bool = False) -> dict[str, Scan]:
    """The case's images in the order of `data.modalities`: all, or one or more with `some` or data.missing=mask.

    Raises DataError: two_files, missing_modality.
    """
    _refuse_twice(case, data.modalities)
    there = {modality: case.images[modality] for modality in data.modalities if modality in case.images}
    some = some or data.missing == "mask"
    if not there or (len(there) < len(data.modalities) and not some):
        missing = [modality for modality in data.modalities if modality not in there]
        lacks = f"none of {', '.join(missing)}" if some else f"no {', '.join(missing)}"
        raise DataError(
            "missing_modality",
            f"{case.patient} visit {case.visit}: {lacks}; has {', '.join(case.images) or 'no image'}; "
            "add the file, or leave the patient out",
        )
    return there


def two_files(case: Case, what: str) -> str:
    """Name the files that a case has for one modality, or for MASK."""
    names = ", ".join(str(path) for path in case.twice[what])
    return f"{case.patient} visit {case.visit}: {len(case.twice[what])} files for {what}: {names}; leave one"


def _refuse_twice(case: Case, names: Sequence[str]) -> None:
    """Raise DataError, two_files: which of them is meant is the hospital's to say."""
    if twice := [name for name in names if name in case.twice]:
        raise DataError("two_files", two_files(case, twice[0]))


def same_grid(first: tuple[Scan, Volume], scan: Scan, volume: Volume) -> None:
    """Raise DataError, shape_mismatch or affine_mismatch, unless a scan's voxels are those of the case's first.

    The place is compared at the eight corners of the volumes, in mm: an entry of an affine is mm per voxel, so a small
    difference there, a turn or another edge, moves the far side by many mm.
    """
    expected = first[1]
    if volume.array.shape != expected.array.shape or not np.allclose(volume.spacing, expected.spacing, TOLERANCE, 0):
        raise DataError(
            "shape_mismatch",
            f"{scan}: {_grid(volume)}, but {first[0].path.name} {_grid(expected)}; "
            "register a patient's scans to one grid",
        )
    apart = float(np.linalg.norm(_corners(volume) - _corners(expected), axis=1).max())
    if apart > APART:
        raise DataError(
            "affine_mismatch",
            f"{scan}: lies elsewhere than {first[0].path.name}, by {apart:.3g} mm at a corner; "
            "register a patient's scans to one grid",
        )


def prepared_shape(volume: Volume, data: DataConfig) -> tuple[int, ...]:
    """Voxels along each axis once a volume has the run's spacing, before it is cropped."""
    return resampled_shape(volume.array.shape, volume.spacing, _edges(volume, data))


def _corners(volume: Volume) -> npt.NDArray[np.float64]:
    """The eight corners of a volume, (8, 3), mm; a voxel reaches half its edge around its centre."""
    corners: npt.NDArray[np.float64] = apply_affine(volume.affine, _CORNERS * volume.array.shape - 0.5)
    return corners


def _visit(case: Case, scans: Sequence[Scan]) -> dict[str, object]:
    """Name a visit and the state of its files.

    A scan is its file's name, size and time of change: in deployment every message is a new process, which would spend
    seconds to minutes to hash what the scans hold. A copied folder is prepared again; a moved one is not.
    """
    try:
        states = [(scan, scan.path.stat()) for scan in scans]
    except OSError as error:
        raise DataError("unreadable", f"{error.filename}: {error.strerror}; look at the file and its rights") from error
    files = [[scan.path.name, scan.channel, state.st_size, state.st_mtime_ns] for scan, state in states]
    return {"patient": case.patient, "visit": case.visit, "files": files}


def prepare_images(cases: Sequence[Case], data: DataConfig) -> Images:
    """Prepare the images of `cases`, one patient's visits in order, for segmentation; nothing is written.

    Raises DataError: shape_mismatch, affine_mismatch, and those of `images_of` and `read_volume`.
    """
    images: list[npt.NDArray[np.float16]] = []
    first: tuple[Scan, Volume] | None = None
    brain = np.zeros((), np.bool_)
    inside: list[npt.NDArray[np.bool_]] = []
    there = [images_of(case, data) for case in cases]
    for scans in there:
        frame, seen = dict[str, npt.NDArray[np.float16]](), np.zeros((), np.bool_)
        for modality, scan in scans.items():
            volume = read_volume(scan)
            first = first or (scan, volume)
            same_grid(first, scan, volume)
            seen = seen | (volume.array != 0)
            array = _spaced(volume.array, first[1], data, order=1)
            brain = brain | (array != 0)
            frame[modality] = z_score(array)
        inside.append(seen)
        empty = np.zeros_like(next(iter(frame.values())))
        images.append(np.stack([frame.get(modality, empty) for modality in data.modalities]))
    assert first is not None, "one case or more, and a config has one modality or more"
    box = bounding_box(brain)
    cropped = np.stack([image[:, *box] for image in images])
    present = np.array([[modality in scans for modality in data.modalities] for scans in there])
    return Images(cropped, present, _edges(first[1], data), box, brain.shape, first, inside)


def _segmentation(cases: Sequence[Case], data: DataConfig) -> Entry:
    images, masks = prepare_images(cases, data), []
    for case in cases:
        mask = scans_of(case, data)[-1]
        labels = read_volume(mask)
        same_grid(images.first, mask, labels)
        try:
            regions = regions_of(labels.array, case.labels, data.regions)
        except DataError as error:
            raise DataError(error.code, f"{mask}: {error}") from error
        masks.append(np.stack([_spaced(region, images.first[1], data, order=0)[images.box] for region in regions]))
    mask_box = np.stack(masks)
    voxels, by_region = foreground_voxels(mask_box), region_voxels(mask_box)
    return Entry(images.array, mask_box, voxels, by_region, images.present, images.spacing, images.affine)


def block_entry(case: Case, data: DataConfig) -> Entry:
    """Prepare one visit for a label, see `prepare_block`; nothing is written.

    Raises DataError: missing_modality, shape_mismatch, affine_mismatch, and those of `read_volume`.
    """
    image = np.zeros((1, len(data.modalities), *data.patch), np.float16)
    first: tuple[Scan, Volume] | None = None
    for modality, scan in images_of(case, data, some=True).items():
        volume = read_volume(scan)
        first = first or (scan, volume)
        same_grid(first, scan, volume)
        scaled = min_max(_spaced(volume.array, volume, data, order=1))
        image[0, data.modalities.index(modality)] = central_block(scaled, data.patch)
    assert first is not None, "the case has one modality or more"
    present = np.array([[modality in case.images for modality in data.modalities]])
    no_mask = np.zeros((1, 0, *data.patch), np.uint8)
    no_voxels, none_by_region = np.zeros((0, 4), np.int32), np.zeros((0, 5), np.int32)
    return Entry(image, no_mask, no_voxels, none_by_region, present, _edges(first[1], data))


def _edges(volume: Volume, data: DataConfig) -> tuple[float, float, float]:
    """Voxel edges that a volume has once it is prepared, mm; those of the scan where they are near enough."""
    if data.spacing is None:
        return volume.spacing
    wanted = data.spacing if isinstance(data.spacing, tuple) else (data.spacing,) * 3
    return volume.spacing if np.allclose(volume.spacing, wanted, TOLERANCE, 0) else wanted


def _spaced(array: npt.NDArray[Any], volume: Volume, data: DataConfig, order: int) -> npt.NDArray[Any]:
    target = _edges(volume, data)
    return array if np.array_equal(target, volume.spacing) else resample(array, volume.spacing, target, order)


def _grid(volume: Volume) -> str:
    size, edges = map(str, volume.array.shape), (f"{mm:.3g}" for mm in volume.spacing)
    return f"{'x'.join(size)} voxels of {'x'.join(edges)} mm"
