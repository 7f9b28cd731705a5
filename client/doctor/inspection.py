"""One case, every file read once to its last byte: what is wrong with it, and the facts a cohort is compared by."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gliofed.client.doctor.anatomy import MaskFacts, image_facts, mask_facts, tumour_findings
from gliofed.client.doctor.contrast import Contrasts, Labels
from gliofed.client.doctor.findings import MASK, Facts, Fault, Grid, Warned
from gliofed.client.doctor.pictures import Marks, picture
from gliofed.client.doctor.plausibility import implausible, unchecked
from gliofed.client.doctor.reading import read_file
from gliofed.shared.data.cases import Case
from gliofed.shared.data.labels import LABELS, ROUNDING, regions_of
from gliofed.shared.data.volume import DataError, Scan, Volume, check_finite, volume_of
from gliofed.shared.site_config import CheckConfig


@dataclass(frozen=True)
class Inspection:
    """All that comes back of one case: no voxels but small pictures."""

    facts: Facts
    odd: list[Warned] = field(default_factory=list)
    """What is odd about the tumour and the contrasts."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """PNG by modality or MASK."""
    unchecked: dict[str, str] = field(default_factory=dict)
    """Code -> why it, or some of it, could not be looked for."""


def inspect(case: Case, rules: CheckConfig, draw: bool = True) -> Inspection:
    """Read every scan of a case, whatever a run will ask for: `judge` says what of it matters to that.

    One image is in memory at a time, besides the mask. Pictures, which `draw` asks for, are a third of the work.
    """
    look = _Look(case, rules, draw)
    scans = scans_of(case)
    files: dict[Path, dict[str, Scan]] = {}
    for name, scan in scans.items():
        files.setdefault(scan.path, {})[name] = scan
    for path, inside in files.items():
        look.file(path, inside)
    odd = tumour_findings(look.mask, look.brain, rules, case.labels) if look.mask is not None else []
    if look.contrasts is None:
        return Inspection(look.facts, odd, look.pictures)
    return Inspection(look.facts, odd + implausible(look.contrasts), look.pictures, unchecked(look.contrasts))


def scans_of(case: Case) -> dict[str, Scan]:
    """The mask first, so that each image is looked at under it, then the images by modality."""
    return ({MASK: case.mask} if case.mask is not None else {}) | case.images


class _Look:
    """What has been seen of a case so far."""

    def __init__(self, case: Case, rules: CheckConfig, draw: bool) -> None:
        self.case, self.rules, self.draw = case, rules, draw
        self.facts = Facts()
        self.pictures: dict[str, bytes] = {}
        self.mask: MaskFacts | None = None
        self.brain: Marks | None = None  # voxels that are not zero in any image
        self.contrasts: Contrasts | None = None

    def add(self, code: str, message: str, path: Path, *names: str) -> None:
        """Note a fault of the scans of these names."""
        self.facts.faults.append(Fault(names, code, message, str(path)))

    def file(self, path: Path, scans: Mapping[str, Scan]) -> None:
        """Read one file and look at the volumes that the case has in it."""
        state, image = read_file(path)
        if state is not None:
            self.facts.files.append(state)
        if isinstance(image, DataError):
            self.add(image.code, str(image), path, *scans)
            return
        placed = bool(image.header["qform_code"] or image.header["sform_code"])
        for name, scan in scans.items():
            try:
                self.check_size(scan, tuple(image.shape))
                self.volume(name, scan, volume_of(scan, image), placed)
            except DataError as error:
                self.add(error.code, str(error), path, name)
        if not placed:
            message = (
                f"{path}: neither qform nor sform says where the voxels lie, so left and right are not known; "
                "convert it again from DICOM"
            )
            self.add("no_spatial_header", message, path, *scans)

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
            affine = tuple(tuple(float(value) for value in row) for row in volume.affine)
            depth, height, width = volume.array.shape
            self.facts.grids[name] = Grid((depth, height, width), volume.spacing, affine)
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
        self.contrasts = Contrasts(scheme, volume.array.shape, volume.spacing, Labels.of(volume))

    def look_at_image(self, name: str, scan: Scan, volume: Volume) -> None:
        """Note the image's facts, also under the mask."""
        low = float(volume.array.min())
        if low == float(volume.array.max()):
            raise DataError("constant_image", f"{scan}: every voxel is {low:g}; export it again")
        digest = hashlib.sha256(repr(volume.array.shape).encode())
        digest.update(np.ascontiguousarray(volume.array + np.float32(0), dtype="<f4").data)  # -0 becomes 0
        self.facts.images[name] = image_facts(volume, digest.hexdigest())
        if self.contrasts is None:
            self.contrasts = Contrasts(self.case.labels, volume.array.shape, volume.spacing)
        self.contrasts.add(name, volume.array)
        if self.mask is None or self.mask.any.shape != volume.array.shape:
            return
        inside = volume.array != 0
        self.brain = inside if self.brain is None else self.brain | inside
