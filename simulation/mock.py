"""MONAI's mock volumes as a BraTS 2023 folder.

MONAI draws bright balls in uniform noise. A series is MONAI's volume that is moved: a patient's balls drift along one
line and grow with a zoom about the centre. The noise is drawn anew each visit, in MONAI's way, since a moved noise
would be smoother than the first visit's. A ball near the edge may drift out of the volume, as anatomy may of a scan.
"""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from gliofed.shared.files import new_folder
from gliofed.shared.parse import Positive, Seed, Strict

DRIFT = 0.1
"""Farthest that balls drift along an axis from first visit to last, as a fraction of the volume's edge."""
GROWTH = 0.2
"""Largest growth of a ball's radius from first visit to last; half of it is the least."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MockConfig(Strict):
    """What MONAI draws; 128x128x32, 12 objects, radius_max 15 and 5 visits is the setting of the first CLSTM runs."""

    patients: Annotated[int, Field(gt=0, le=1000)] = 4
    """At one site."""
    visits: Annotated[int, Field(gt=0, le=1000)] = 1
    """Volumes of one patient."""
    size: tuple[Positive, Positive, Positive] = (32, 32, 32)
    """(D, H, W) in voxels of 1 mm."""
    objects: Positive = 4
    """Balls in a volume; they may overlap."""
    radius_max: Positive = 8
    """Voxels; MONAI draws below it, and needs every edge to be more than twice as long."""
    radius_min: Positive = 3
    """Voxels."""
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    """Noise is uniform from 0 to this; balls are 0.5 to 1 bright."""
    seed: Seed = 0
    """With the numbers of site and patient, of everything that is drawn."""

    def __post_init__(self) -> None:
        if not self.radius_min < self.radius_max < min(self.size) / 2:
            raise ValueError(
                f"data.radius_min={self.radius_min}, data.radius_max={self.radius_max}, data.size={self.size}: "
                "MONAI needs radius_min < radius_max < half of the shortest edge"
            )


def write_mock(config: MockConfig, root: Path, site: int, report: Callable[[], None] = lambda: None) -> None:
    """Write a site's patients under `root`, as `Mock-SSNNN-VVV/Mock-SSNNN-VVV-{t1n,seg}.nii.gz`, label scheme mock.

    The same call writes the same bytes; cases that are there are kept. `report` is called after each case.
    """
    for patient in range(config.patients):
        names = [f"Mock-{site:02d}{patient:03d}-{visit:03d}" for visit in range(config.visits)]
        if not all((root / name).is_dir() for name in names):
            for name, (image, mask) in zip(names, draw(config, site, patient), strict=True):
                _write_case(root / name, image, mask)
        for _ in names:
            report()


def draw(config: MockConfig, site: int, patient: int) -> Iterator[tuple[Array, npt.NDArray[np.uint8]]]:
    """Yield each visit's image (D, H, W), 0 to 1, and mask, 0 or 1. The first is MONAI's own."""
    key = [config.seed, site, patient]
    image, label = _monai(config, config.noise, np.random.RandomState(key))
    yield image, label
    clean, _ = _monai(config, 0.0, np.random.RandomState(key))  # the same balls
    rng = np.random.RandomState([*key, 1])
    drift = rng.uniform(-DRIFT, DRIFT, 3) * config.size
    growth = rng.uniform(GROWTH / 2, GROWTH)
    for visit in range(1, config.visits):
        phase = visit / (config.visits - 1)
        shift, zoom = drift * phase, 1 + growth * phase
        moved = np.maximum(_move(clean, shift, zoom, order=1), rng.uniform(0, config.noise, config.size))
        # Scaled to 0..1 as MONAI does.
        yield (moved - moved.min()) / (np.ptp(moved) or 1.0), _move(label, shift, zoom, order=0)


def _monai(config: MockConfig, noise: float, rng: np.random.RandomState) -> tuple[Array, npt.NDArray[np.uint8]]:
    from monai.data.synthetic import create_test_image_3d  # takes seconds, and only mock data need it

    image, label = create_test_image_3d(
        *config.size,
        num_objs=config.objects,
        rad_max=config.radius_max,
        rad_min=config.radius_min,
        noise_max=noise,
        num_seg_classes=1,
        random_state=rng,
    )
    return image, label.astype(np.uint8)


def _move(volume: npt.NDArray[Any], shift: Array, zoom: float, order: int) -> npt.NDArray[Any]:
    """Zoom about the centre, then shift by voxels; 0 comes in at the edges."""
    centre = (np.array(volume.shape) - 1) / 2
    # The transform asks where a voxel comes from: centre + (voxel - centre - shift) / zoom.
    origin = centre - (centre + shift) / zoom
    moved: npt.NDArray[Any] = ndimage.affine_transform(volume, np.full(3, 1 / zoom), origin, order=order)
    return moved


def _write_case(folder: Path, image: Array, mask: npt.NDArray[np.uint8]) -> None:
    """Write one case; its folder appears whole."""
    # From 1 up: zero would mean "outside the brain", which mock volumes do not have.
    scan = (1 + np.rint(image * 1000)).astype(np.int16)
    with new_folder(folder) as half:
        for name, array in (("t1n", scan), ("seg", mask)):
            content = nib.Nifti1Image(array, np.eye(4)).to_bytes()
            (half / f"{folder.name}-{name}.nii.gz").write_bytes(gzip.compress(content, mtime=0))
