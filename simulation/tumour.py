"""A glioma as geometry: where it is, what it pushes away, and which voxel is which compartment."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.simulation.brain import Array, Grid, smooth_noise

NECROSIS, EDEMA, ENHANCING = 1, 2, 3
"""Compartments; BraTS 2020 writes ENHANCING as 4, BraTS 2023 as 3. NECROSIS is also the solid part of an LGG."""


@dataclass(frozen=True, kw_only=True)
class Tumour:
    """One glioma; the core is a noisy ellipsoid and the edema follows white matter."""

    high_grade: bool
    centre: Array
    """mm from the corner of the field of view, (3,)."""
    axes: NDArray[np.float64]
    """Turns and stretches the unit ball into the core, (3, 3), determinant 1."""
    radius: float
    """Of the core, mm."""
    edema: float
    """How far the edema reaches beyond the core in pure white matter, mm."""
    water: float
    """How much of the tissue's signal the edema takes over, 0 to 1."""
    necrosis: float
    """Where the necrosis ends, as a share of the radius; 0: a solid tumour."""
    enhancing: float
    """Deviations of smooth noise above which viable tumour enhances: -1 nearly all, 4 nothing."""
    edge: float
    """Blur of the core's edge, mm."""
    seed: int
    """Of the noise that makes it irregular; the same at every visit."""

    def grown(self, factor: float) -> "Tumour":
        """The same tumour with `factor` times the radius and edema."""
        return Tumour(**{**vars(self), "radius": self.radius * factor, "edema": self.edema * factor})

    @property
    def reach(self) -> float:
        """No compartment lies further than this from the centre along an axis, mm."""
        return 2.2 * self.radius + 1.6 * self.edema

    def displacement(self, grid: Grid) -> tuple[Array, Array, Array]:
        """By how many mm along L, P and S the tissue was pushed outward, (X, Y, Z) each."""
        x, y, z = (axis - middle for axis, middle in zip(grid.open(), self.centre, strict=True))
        share = (0.38 if self.high_grade else 0.28) * np.exp(-(x**2 + y**2 + z**2) / np.float32(1.6 * self.radius) ** 2)
        return share * x, share * y, share * z

    def compartments(self, grid: Grid, wm: Array, csf: Array, brain: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """NECROSIS, EDEMA, ENHANCING or 0 in each voxel of `grid`, (X, Y, Z); `wm` and `csf` are fractions."""
        rng = np.random.default_rng(self.seed)
        coarse, fine, inner, viable, spread = (smooth_noise(rng, grid, mm) for mm in (12.0, 5.0, 8.0, 7.0, 9.0))
        offsets = np.stack(np.broadcast_arrays(*(a - c for a, c in zip(grid.open(), self.centre, strict=True))))
        ball = np.tensordot(np.linalg.inv(self.axes).astype(np.float32), offsets, axes=1)
        rho = (
            np.sqrt((ball**2).sum(0))
            / np.float32(self.radius)
            * np.exp(np.clip(0.17 * coarse + 0.07 * fine, -0.4, 0.4))
        )
        labels = np.zeros(grid.shape, dtype=np.uint8)
        fingers = np.clip(1.6 * wm - 0.35, 0.1, 1.1) * np.exp(0.35 * np.clip(spread, -2, 1))
        labels[((rho - 1) * self.radius < self.edema * fingers) & (csf < 0.4)] = EDEMA
        core = rho < 1
        labels[core] = NECROSIS
        labels[core & (rho > self.necrosis * np.exp(0.2 * inner)) & (viable > self.enhancing)] = ENHANCING
        labels[~brain] = 0
        return labels * _around_the_largest(labels)


def _around_the_largest(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The largest connected part: edema that lost touch with its tumour is dropped, (X, Y, Z)."""
    parts, _ = ndimage.label(labels)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def draw_tumour(rng: np.random.Generator, high_grade: bool, centre: Array) -> Tumour:
    """A glioma of a grade at `centre`, (3,) mm.

    One HGG in five hardly enhances and two LGG in five do, so that enhancing volume alone does not tell the grade.
    """
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    stretch = np.exp(rng.normal(0, 0.16, 3))
    chance, radius = rng.random(), np.exp(rng.normal(0, 0.26))
    edema, water, necrosis, level = rng.random(4)
    if high_grade:
        poor = chance < 0.2
        radius, edema = 15.5 * radius, 3 + 14 * edema
        necrosis, enhancing = (0.0, 1.7) if poor else (0.45 + 0.37 * necrosis, -1.8 + 0.8 * level)
    else:
        rich, ring = chance < 0.4, chance < 0.1
        radius, edema = 14 * radius, 1.5 + 9.5 * edema
        necrosis, enhancing = (0.35 + 0.3 * necrosis if ring else 0.0, 0.4 + 1.0 * level if rich else 4.0)
    return Tumour(
        high_grade=high_grade,
        centre=centre,
        axes=turn @ np.diag(stretch / stretch.prod() ** (1 / 3)) @ turn.T,
        radius=float(np.clip(radius, 8, 24)),
        edema=edema,
        water=0.5 + 0.45 * water,
        necrosis=necrosis,
        enhancing=enhancing,
        edge=0.6 if high_grade else 1.6,
        seed=int(rng.integers(2**32)),
    )
