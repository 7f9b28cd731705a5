"""One case, every file read once to its last byte: what is wrong with it, and the facts a cohort is compared by."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from client.doctor.anatomy import MaskFacts, brain_findings, image_facts, mask_facts, tumour_findings
from client.doctor.findings import FileState, Finding, ImageFacts
from client.doctor.pictures import Marks, picture
from client.doctor.reading import read_file
from shared.data.cases import Case
from shared.data.labels import LABELS, ROUNDING, regions_of
from shared.data.prepare import same_grid
from shared.data.volume import DataError, Scan, Volume, check_finite, volume_of
from shared.site_config import CheckConfig

Task = Literal["segmentation", "grading"]
MASK = "mask"
"""Stands for the mask where modalities are named."""


@dataclass(frozen=True)
class Inspection:
    """All that comes back of one case: no voxels but small pictures."""

    findings: list[Finding]
    files: list[FileState]
    """Those that could be opened, in the order of the case."""
    images: dict[str, ImageFacts] = field(default_factory=dict)
    """By modality, those that could be decoded and are not constant."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """PNG by modality."""


def inspect(case: Case, rules: CheckConfig, modalities: Sequence[str], task: Task, draw: bool = True) -> Inspection:
    """Read the images of `modalities`, and the mask for segmentation, and say what is to be mended.

    What another modality's file holds is not looked at. One image is in memory at a time, besides the mask. Pictures,
    which `draw` asks for, are a third of the work.
    """
    look = _Look(case, rules, task, draw)
    scans = {name: case.images[name] for name in modalities if name in case.images}
    missing = [name for name in modalities if name not in case.images]
    if missing:
        look.missing(missing, has_some=bool(scans))
    if task == "segmentation":
        if case.mask is None:
            look.add("missing_mask", f"{look.name}: no mask; add the segmentation's file, or leave the case out")
        else:  # first, so that each image is looked at under it
            scans = {MASK: case.mask, **scans}
    files: dict[Path, dict[str, Scan]] = {}
    for name, scan in scans.items():
        files.setdefault(scan.path, {})[name] = scan
    for path, inside in files.items():
        look.file(path, inside)
    look.together(scans)
    return Inspection(look.findings, look.files, look.images, look.pictures)


class _Look:
    """What has been seen of a case so far."""

    def __init__(self, case: Case, rules: CheckConfig, task: Task, draw: bool) -> None:
        self.case, self.rules, self.task, self.draw = case, rules, task, draw
        self.name = f"{case.patient} visit {case.visit}"
        self.findings: list[Finding] = []
        self.files: list[FileState] = []
        self.images: dict[str, ImageFacts] = {}
        self.pictures: dict[str, bytes] = {}
        self.grids: dict[str, Volume] = {}  # without voxels
        self.mask: MaskFacts | None = None
        self.brain: Marks | None = None  # voxels that are not zero in any image
        self.enhancement: dict[str, float] = {}

    def add(self, code: str, message: str, scan: Scan | Path | None = None, shown: bytes = b"") -> None:
        """Note an error."""
        path = scan.path if isinstance(scan, Scan) else scan
        self.findings.append(Finding(code=code, message=message, file=str(path) if path else None, picture=shown))

    def missing(self, names: Sequence[str], has_some: bool) -> None:
        """Note images that are not there. Grading can do without some, and knows that they are missing."""
        has = ", ".join(self.case.images) or "no image"
        message = f"{self.name}: no {', '.join(names)}; has {has}; add the file, or leave the case out"
        lenient = self.task == "grading" and has_some
        self.findings.append(
            Finding(code="missing_modality", message=message, severity="warning" if lenient else "error")
        )

    def file(self, path: Path, scans: Mapping[str, Scan]) -> None:
        """Read one file and look at the volumes that the case has in it."""
        state, image = read_file(path)
        if state is not None:
            self.files.append(state)
        if isinstance(image, DataError):
            self.add(image.code, str(image), path)
            return
        placed = bool(image.header["qform_code"] or image.header["sform_code"])
        for name, scan in scans.items():
            try:
                self.check_size(scan, tuple(image.shape))
                self.volume(name, scan, volume_of(scan, image), placed)
            except DataError as error:
                self.add(error.code, str(error), scan, self.pictures.get(name, b""))
        if not placed:
            message = (
                f"{path}: neither qform nor sform says where the voxels lie, so left and right are not known; "
                "convert it again from DICOM"
            )
            self.add("no_spatial_header", message, path, next((self.pictures.get(name, b"") for name in scans), b""))

    def check_size(self, scan: Scan, shape: tuple[int, ...]) -> None:
        """Raise DataError, size, before memory is taken for a volume of another size than allowed."""
        low, high = self.rules.size
        single = len(shape) >= 3 and (scan.channel is not None or all(count == 1 for count in shape[3:]))
        if single and not all(low <= count <= high for count in shape[:3]):
            raise DataError(
                "size",
                f"{scan}: {'x'.join(map(str, shape[:3]))} voxels, check.size allows {low} to {high} along an axis; "
                "is it the scan, and no localiser? Export it again, or change check.size",
            )

    def volume(self, name: str, scan: Scan, volume: Volume, placed: bool) -> None:
        """Look at one volume by itself. Raises DataError at the first thing wrong with it."""
        bad = ~np.isfinite(volume.array)
        if self.draw:
            self.pictures[name] = picture(volume, bad if bad.any() else self.outlined(name, volume))
        check_finite(scan, volume)
        low, high = self.rules.spacing
        if not all(low * 0.999 <= edge <= high * 1.001 for edge in volume.spacing):
            edges = "x".join(f"{edge:.4g}" for edge in volume.spacing)
            raise DataError(
                "spacing",
                f"{scan}: voxels of {edges} mm, check.spacing allows {low:g} to {high:g} mm; "
                "correct the header, or change check.spacing",
            )
        if placed:
            self.grids[name] = Volume(np.broadcast_to(np.float32(0), volume.array.shape), volume.spacing, volume.affine)
        if name == MASK:
            self.look_at_mask(scan, volume)
        else:
            self.look_at_image(name, scan, volume)

    def outlined(self, name: str, volume: Volume) -> Marks | None:
        """Mark what a picture of the volume outlines: the mask."""
        if name == MASK:
            return np.asarray(volume.array != 0)
        return self.mask.any if self.mask is not None and self.mask.any.shape == volume.array.shape else None

    def look_at_mask(self, scan: Scan, volume: Volume) -> None:
        """Check the values; note where the tumour is."""
        scheme = self.case.labels
        try:
            regions_of(volume.array, scheme, [next(iter(LABELS[scheme]))])
        except DataError as error:
            known = frozenset[int]({0}).union(*LABELS[scheme].values())
            whole = np.rint(volume.array)
            wrong = (np.abs(volume.array - whole) > ROUNDING) | ~np.isin(whole, sorted(known))
            if self.draw:
                self.pictures[MASK] = picture(volume, wrong)
            raise DataError(error.code, f"{scan}: {error}") from error
        self.mask = mask_facts(volume, scheme)

    def look_at_image(self, name: str, scan: Scan, volume: Volume) -> None:
        """Note the image's facts, also under the mask."""
        low = float(volume.array.min())
        if low == float(volume.array.max()):
            raise DataError("constant_image", f"{scan}: every voxel is {low:g}; export it again")
        digest = hashlib.sha256(repr(volume.array.shape).encode())
        digest.update(np.ascontiguousarray(volume.array + np.float32(0), dtype="<f4").data)  # -0 becomes 0
        self.images[name] = image_facts(volume, digest.hexdigest())
        if self.mask is None or self.mask.any.shape != volume.array.shape:
            return
        inside = volume.array != 0
        self.brain = inside if self.brain is None else self.brain | inside
        if (contrast := self.mask.enhancement(volume.array)) is not None:
            self.enhancement[name] = contrast

    def together(self, scans: Mapping[str, Scan]) -> None:
        """Compare the scans of the case, and add what is odd though it may be right."""
        self.compare_grids(scans)
        self.compare_images(scans)
        paths = {name: scan.path for name, scan in scans.items()}
        warnings = brain_findings(self.images, self.grids, self.rules, self.case.labels)
        if self.mask is not None:
            warnings += tumour_findings(self.mask, self.brain, self.enhancement, self.rules)
        for code, name, what, shown in warnings:
            seen_in = next(iter(self.images), MASK) if name == MASK else name  # an image shows what the mask is on
            shown = shown or self.pictures.get(seen_in, b"")
            self.findings.append(
                Finding(
                    code=code,
                    message=f"{paths[name]}: {what}",
                    file=str(paths[name]),
                    severity="warning",
                    picture=shown,
                )
            )

    def compare_grids(self, scans: Mapping[str, Scan]) -> None:
        """Note the scans that do not share the grid that most of them have."""
        faults: dict[str, dict[str, DataError]] = {
            first: {
                name: error
                for name, grid in self.grids.items()
                if (error := _apart(scans[first], self.grids[first], scans[name], grid))
            }
            for first in self.grids
        }
        for name, error in min(faults.values(), key=len, default={}).items():
            self.add(error.code, str(error), scans[name], self.pictures.get(name, b""))

    def compare_images(self, scans: Mapping[str, Scan]) -> None:
        """Note modalities that are one image."""
        seen: dict[str, str] = {}
        for name, facts in self.images.items():
            other = seen.setdefault(facts.digest, name)
            if other != name:
                message = (
                    f"{scans[name]}: the same voxels as {scans[other]}, so {other} and {name} are one image; "
                    "export the right series"
                )
                self.add("same_image_twice", message, scans[name], self.pictures.get(name, b""))


def _apart(first: Scan, expected: Volume, scan: Scan, volume: Volume) -> DataError | None:
    try:
        same_grid((first, expected), scan, volume)
    except DataError as error:
        return error
    return None
