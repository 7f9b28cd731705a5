"""What a check says of a case, and the codes it says it with."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from gliofed.shared.data.names import MASK as MASK
from gliofed.shared.data.volume import Volume
from gliofed.shared.left_out import ERRORS as ERRORS

Severity = Literal["error", "warning"]

WARNINGS = {
    "empty_mask": "the mask marks nothing",
    "not_skull_stripped": "there is more than a brain in the image",
    "thick_slices": "slices are thick",
    "tiny_tumour": "the tumour is very small",
    "huge_tumour": "the tumour is very large",
    "mask_outside_brain": "the mask marks voxels outside the brain",
    "mask_misplaced": "the mask does not lie on what FLAIR shows",
    "modalities_swapped": "two modalities seem to be swapped",
    "label_scheme": "the labels seem to be of another scheme",
    "binary_mask": "the mask tells no regions apart",
    "intensity_outlier": "the image is unlike the others of this folder",
}
"""Code -> what it means. Somebody should look; the case may be used."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault or oddity of one case; stays at the site, since names and pictures are a patient's."""

    code: str
    """A key of ERRORS or WARNINGS."""
    message: str
    """Names the file, the value and the cure."""
    file: str | None = None
    """Path of the file it was found in; None: a file that is not there, or the patient."""
    severity: Severity = "error"
    picture: bytes = field(default=b"", repr=False)
    """PNG of the place; empty where there is none to show."""


@dataclass(frozen=True)
class FileState:
    """What a file was when it was checked: another size, time or hash is another file."""

    path: Path
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change, ns."""
    sha256: str
    """Of its bytes as they are on disk, in hex."""


@dataclass(frozen=True)
class ImageFacts:
    """What the cohort's comparison needs to know of an image; no voxels."""

    digest: str
    """SHA-256 of its voxels in RAS as float32: the same whatever type, byte order, axes or compression they had."""
    spread: float
    """From the 5th percentile to the 95th of the voxels that are not zero."""
    brain: float
    """Volume of the voxels that are not zero, cm3."""
    zeros: float
    """Share of the voxels that are zero."""


Warned = tuple[str, tuple[str, ...], str, bytes]
"""Code, modalities or MASK that it concerns, what is odd, and a picture of its own or none."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a scan lie, axes as RAS."""

    shape: tuple[int, int, int]
    """Voxels along X, Y, Z."""
    spacing: tuple[float, float, float]
    """Voxel edges, mm."""
    affine: tuple[tuple[float, ...], ...]
    """(4, 4): voxel indices to mm."""

    @property
    def volume(self) -> Volume:
        """A volume on this grid that takes no memory: all its voxels are one zero."""
        return Volume(np.broadcast_to(np.float32(0), self.shape), self.spacing, np.array(self.affine))


@dataclass(frozen=True)
class Fault:
    """Why scans cannot be used."""

    scans: tuple[str, ...]
    """Modalities and MASK; none: it is of the whole case."""
    code: str
    """A key of ERRORS."""
    message: str
    file: str | None


@dataclass(frozen=True)
class Facts:
    """What one case is judged by, for whatever task and modalities a run asks; no voxels, and it can be JSON."""

    files: list[FileState] = field(default_factory=list)
    """Every file of the case that could be opened."""
    faults: list[Fault] = field(default_factory=list)
    grids: dict[str, Grid] = field(default_factory=dict)
    """By modality or MASK: those that could be decoded and have a place in space."""
    images: dict[str, ImageFacts] = field(default_factory=dict)
    """By modality: those that could be decoded and are not constant."""


@dataclass(frozen=True)
class Seen:
    """A case as a run with some task and modalities would see it."""

    findings: list[Finding]
    images: dict[str, ImageFacts]
    pictures: dict[str, bytes]
    """PNG by modality or MASK."""
