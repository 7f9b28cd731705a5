"""A healthy head of its own for every phantom: the MNI template, posed and warped."""

import gzip
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import grid_sample

Array = NDArray[np.float32]

FIELD = np.array([240.0, 240.0, 155.0])
"""The field of view of BraTS in mm, along left, posterior and superior."""
TEMPLATE_FILE = Path(__file__).parent / "anatomy" / "icbm152.nii.gz"
TEMPLATE_CENTRE = np.array([0.0, -17.0, 6.0])
"""Middle of the template's brain, MNI mm (RAS)."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
WARP = 2.2
"""Standard deviation of the warp, mm."""


@dataclass(frozen=True)
class Grid:
    """Where a block of voxels lies: mm along L, P and S from the corner of the field of view."""

    axes: tuple[Array, Array, Array]

    @classmethod
    def of(cls, resolution: float) -> "Grid":
        """The whole field of view in voxels of `resolution` mm."""
        counts = (round(mm / resolution) for mm in FIELD)
        x, y, z = (np.asarray((np.arange(count) + 0.5) * resolution, dtype=np.float32) for count in counts)
        return cls((x, y, z))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        x, y, z = self.axes
        return len(x), len(y), len(z)

    def open(self) -> tuple[Array, Array, Array]:
        """The axes shaped to broadcast to (X, Y, Z)."""
        x, y, z = self.axes
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def around(self, centre: Array, reach: Array | float) -> tuple[slice, slice, slice]:
        """The voxels less than `reach` mm from `centre` along each axis."""
        low, high = centre - reach, centre + reach
        x, y, z = (slice(*np.searchsorted(axis, ends)) for axis, *ends in zip(self.axes, low, high, strict=True))
        return x, y, z

    def crop(self, box: tuple[slice, slice, slice]) -> "Grid":
        """The block inside `box`."""
        x, y, z = (axis[part] for axis, part in zip(self.axes, box, strict=True))
        return Grid((x, y, z))


def smooth_noise(rng: np.random.Generator, grid: Grid, spacing: float) -> Array:
    """Noise of mean 0 and deviation 1, (X, Y, Z), as a cubic B-spline on a lattice of `spacing` mm.

    The lattice spans the field of view, so that a crop or another resolution shows the same noise.
    """
    knots = [np.arange(-1, np.ceil(mm / spacing) + 2, dtype=np.float32) for mm in FIELD]
    values = rng.standard_normal([len(knot) for knot in knots], dtype=np.float32)
    for axis, knot in zip(grid.axes, knots, strict=True):
        t = np.abs(axis[:, None] / np.float32(spacing) - knot)
        weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
        # Consumes the first axis and appends it: X, Y, Z in the end.
        values = np.tensordot(values, weights, axes=(0, 1))
    return np.ascontiguousarray(values / np.float32(0.479**1.5))


@dataclass(frozen=True)
class Template:
    """The MNI template: maps (4, X, Y, Z) in 1 mm RAS, and places (N, 3) in MNI mm."""

    maps: Array
    """WM, GM and CSF as fractions, and what they leave unexplained of T1 (WM is about 1)."""
    origin: NDArray[np.float64]
    """MNI mm of voxel 0, 0, 0."""
    glioma: NDArray[np.float64]
    """Where a glioma can start: white matter above the tentorium, 16 mm or more from the surface."""
    periventricular: NDArray[np.float64]
    """White matter within 6 mm of the ventricles."""
    white: NDArray[np.float64]
    """All white matter above the tentorium."""


@lru_cache(maxsize=2)
def load_template(resolution: float) -> Template:
    """The template, blurred to what voxels of `resolution` mm can show."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(TEMPLATE_FILE.read_bytes()))
    half = np.asarray(image.dataobj)
    whole = np.concatenate([half[:0:-1], half]).astype(np.float32) / 255  # the template is its own mirror image
    origin = image.affine[:3, 3] - [len(half) - 1, 0, 0]
    t1, gm, wm = np.moveaxis(whole, -1, 0)
    brain = t1 > 0
    csf = np.clip(brain - gm - wm, 0, None)
    # Averaging 152 heads blurred the cortex; squares bring its edges back.
    total = np.clip(wm**2 + gm**2 + csf**2, 1e-6, None)
    tissues = [brain * part**2 / total for part in (wm, gm, csf)]
    residual = np.where(brain, t1 / 0.875 - wm - 0.74 * gm - 0.3 * csf, 0)
    blur = 0.42 * np.sqrt(max(resolution**2 - 1, 0))
    maps = [ndimage.gaussian_filter(part, blur) if blur else part for part in (*tissues, residual)]
    return Template(np.ascontiguousarray(maps, dtype=np.float32), origin, *_places(brain, wm, csf, origin))


def _places(brain: NDArray[np.bool_], wm: Array, csf: Array, origin: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Places of glioma, periventricular and any white matter, MNI mm, on a 2 mm grid."""
    brain, wm, csf = brain[::2, ::2, ::2], wm[::2, ::2, ::2], csf[::2, ::2, ::2]
    x, y, z = (2 * np.indices(brain.shape)) + origin[:, None, None, None]
    depth = 2 * ndimage.distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1, 1:-1]
    above = (z > 2) | ((z > -18) & (y > -30) & (np.abs(x) > 24))
    ventricles = (csf > 0.5) & (depth > 24) & (z > -2) & (z < 34) & (np.abs(x) < 34)
    near = 2 * ndimage.distance_transform_edt(~ventricles) < 6
    white = (wm > 0.75) & above
    places = (white & (depth > 16), (wm > 0.5) & near & (z > -2), white)
    return [np.argwhere(place) * 2.0 + origin for place in places]


@dataclass(frozen=True)
class Pose:
    """MNI mm = matrix @ (mm in the field of view - centre) + centre of the template."""

    matrix: NDArray[np.float64]

    def to_field(self, mni: NDArray[np.float64]) -> Array:
        """Where (..., 3) MNI mm lie in the field of view, but for the warp."""
        return np.asarray((mni - TEMPLATE_CENTRE) @ np.linalg.inv(self.matrix).T + FIELD / 2, dtype=np.float32)


def draw_pose(rng: np.random.Generator) -> Pose:
    """A head turned by about 0.04 rad and scaled by about 0.95 +- 3.5%, each axis a little for itself."""
    a, b, c = rng.normal(0, 0.04, 3)
    cross = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    rotation, _ = np.linalg.qr(np.eye(3) + cross)
    rotation *= np.sign(np.diag(rotation))
    scale = 0.95 * (1 + 0.035 * np.clip(rng.standard_normal(), -2, 2)) * (1 + rng.normal(0, 0.012, 3))
    return Pose(LPS_TO_RAS @ np.diag(1 / scale) @ rotation)


def sample_head(
    rng: np.random.Generator, pose: Pose, grid: Grid, template: Template, pushed: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """WM, GM, CSF and texture, (X, Y, Z) on `grid`, of one head.

    `pushed` says by how many mm, along L, P and S, a tumour displaced what is in each voxel.
    """
    places = [
        axis - np.float32(mm / 2) - push + np.float32(WARP) * smooth_noise(rng, grid, 28.0)
        for axis, mm, push in zip(grid.open(), FIELD, pushed, strict=True)
    ]
    # What grid_sample wants: the last axis first, ends at -1 and 1.
    points = np.empty((*grid.shape, 3), dtype=np.float32)
    for axis, size in enumerate(template.maps.shape[1:]):
        scale = 2 / (size - 1)
        points[..., 2 - axis] = sum(
            np.float32(m * scale) * place for m, place in zip(pose.matrix[axis], places, strict=True)
        )
        points[..., 2 - axis] += (TEMPLATE_CENTRE - template.origin)[axis] * scale - 1
    maps = torch.from_numpy(template.maps)[None]
    wm, gm, csf, texture = grid_sample(maps, torch.from_numpy(points)[None], align_corners=True)[0].numpy()
    return wm, gm, csf, texture
