"""From tissue to images: the contrast of each modality, and what a site's scanner makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.simulation.brain import Array, Grid, Pose, Template, smooth_noise
from gliofed.simulation.tumour import EDEMA, ENHANCING, NECROSIS, Tumour

CONTRASTS = {
    #          WM    GM    CSF   edema necrosis LGG  ET   texture
    "t1": (1.00, 0.74, 0.28, 0.68, 0.34, 0.56, 0.72, 1.0),
    "t1ce": (1.00, 0.76, 0.28, 0.70, 0.38, 0.58, 1.60, 1.0),
    "t2": (0.55, 0.78, 1.55, 1.15, 1.50, 1.25, 0.98, -0.8),
    "flair": (0.66, 0.84, 0.18, 1.42, 0.80, 1.25, 1.12, -0.5),
}
"""Signal of a tissue, where white matter in T1 is 1; the last is the share of the template's own texture."""


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What a site's machine and protocol do to the signal."""

    bias: float
    """Deviation of the logarithm of the coil's sensitivity over the head."""
    gamma: float
    """Exponent of the signal: how the contrasts differ from other sites'."""
    noise: float
    """Deviation of the Rician noise in a voxel, in white matter's T1."""
    slice: float
    """Slice thickness of all but the isotropic T1ce, mm."""
    scale: float
    """What white matter in T1 is in the file."""


SCANNERS = (
    Scanner(bias=0.05, gamma=1.00, noise=0.020, slice=1.0, scale=420.0),
    Scanner(bias=0.10, gamma=0.85, noise=0.055, slice=3.0, scale=900.0),
    Scanner(bias=0.20, gamma=1.20, noise=0.035, slice=5.0, scale=180.0),
    Scanner(bias=0.08, gamma=1.10, noise=0.030, slice=2.0, scale=2400.0),
    Scanner(bias=0.15, gamma=0.92, noise=0.045, slice=4.0, scale=640.0),
    Scanner(bias=0.12, gamma=1.05, noise=0.040, slice=1.0, scale=1500.0),
    Scanner(bias=0.18, gamma=0.88, noise=0.025, slice=3.0, scale=120.0),
    Scanner(bias=0.07, gamma=1.15, noise=0.050, slice=5.0, scale=3300.0),
)
"""Sites take them in turn."""


@dataclass(frozen=True)
class Tissue:
    """What is in each voxel of `grid`; every map is (X, Y, Z)."""

    grid: Grid
    wm: Array
    gm: Array
    csf: Array
    texture: Array
    bright: Array
    """Harmless hyperintensity of white matter, 0 to 1: what a threshold on FLAIR takes for edema."""
    vessels: Array
    """Blood that T1ce shows, 0 to 1."""
    brain: NDArray[np.bool_]
    """What skull stripping leaves."""
    labels: NDArray[np.uint8]
    """Compartments of the lesions."""
    lesion: NDArray[np.uint8]
    """Whose they are: 1 of the first tumour, 2 and above of those that came later, 0 of none."""


def hyperintensities(
    rng: np.random.Generator, grid: Grid, pose: Pose, template: Template, tumour: Tumour, wm: Array
) -> Array:
    """Caps on the ventricles and scattered spots, (X, Y, Z) from 0 to 1, away from the tumour."""
    bright = np.zeros(grid.shape, dtype=np.float32)
    load = 0.3 + rng.gamma(2.0, 0.5)  # some brains have many
    sorts = ((template.periventricular, 12, (3.0, 7.5)), (template.white, 10, (2.0, 4.5)))
    for places, usual, radii in sorts:
        for place in pose.to_field(rng.choice(places, rng.poisson(usual * load))):
            radius, shape = rng.uniform(*radii), np.exp(rng.normal(0, 0.3, 3))
            if np.linalg.norm(place - tumour.centre) < 1.3 * tumour.radius + 0.5 * tumour.edema + radius:
                continue
            box = grid.around(place, 2 * radius)
            x, y, z = (
                ((axis - middle) / (radius * stretch)) ** 2
                for axis, middle, stretch in zip(grid.crop(box).open(), place, shape, strict=True)
            )
            bright[box] = np.maximum(bright[box], np.exp(-((x + y + z) ** 2)))
    return np.asarray(bright * np.clip(1.5 * wm - 0.2, 0, 1), dtype=np.float32)


def vessels(rng: np.random.Generator, grid: Grid, gm: Array, csf: Array) -> Array:
    """Tubes where two smooth noises are both near 0, in and beside CSF, (X, Y, Z) from 0 to 1."""
    tubes = smooth_noise(rng, grid, 10.0) ** 2 + smooth_noise(rng, grid, 10.0) ** 2
    return np.asarray(np.exp(-tubes / np.float32(0.03)) * np.clip(1.5 * csf + 0.35 * gm, 0, 1), dtype=np.float32)


def render(
    rng: np.random.Generator, tissue: Tissue, lesions: Sequence[Tumour], modality: str, resolution: float
) -> Array:
    """The signal of one modality before a scanner touched it, (X, Y, Z), 0 outside the brain."""
    *tissues, texture = CONTRASTS[modality]
    wm, gm, csf, edema, necrosis, solid, enhancing = np.array(tissues) * (1 + rng.normal(0, 0.04, 7)).clip(0.9, 1.1)
    signal = wm * tissue.wm + gm * tissue.gm + csf * tissue.csf + 0.9 * texture * tissue.texture
    signal += (0.95 * edema - wm) * tissue.bright
    if modality == "t1ce":
        signal += 0.9 * tissue.vessels
    for number, tumour in enumerate(lesions, start=1):
        box = tissue.grid.around(tumour.centre, tumour.reach + 3 * tumour.edge)
        grid, inside = tissue.grid.crop(box), signal[box]
        labels = np.where(tissue.lesion[box] == number, tissue.labels[box], 0)
        grain = [smooth_noise(rng, grid, mm) for mm in (10.0, 4.0)]
        core = solid if tumour.necrosis == 0 else necrosis
        edges = {EDEMA: 1.2, NECROSIS: tumour.edge, ENHANCING: 0.5}
        for label, value in ((EDEMA, edema), (NECROSIS, core), (ENHANCING, enhancing)):
            share = ndimage.gaussian_filter((labels == label).astype(np.float32), edges[label] / resolution)
            if label == EDEMA:  # water among fibres, more of it in some places; it never quite hides the tissue
                share *= np.clip(tumour.water + 0.12 * grain[0], 0.35, 1)
            inside += share * (value * (1 + 0.05 * grain[0] + 0.04 * grain[1]) - inside)
    return np.asarray(np.where(tissue.brain, np.clip(signal, 0.02, None), 0), dtype=np.float32)


def acquire(rng: np.random.Generator, signal: Array, scanner: Scanner, grid: Grid, isotropic: bool) -> Array:
    """What `scanner` records of a signal, in units of the file, (X, Y, Z)."""
    sensitivity = np.exp(np.float32(scanner.bias) * smooth_noise(rng, grid, 75.0))
    seen = (signal * sensitivity) ** np.float32(scanner.gamma)
    step = float(np.diff(grid.axes[2]).mean())
    together = 1 if isotropic else max(1, round(scanner.slice / step))  # voxels that one slice covers
    starts = np.arange(0, seen.shape[2], together)
    sizes = np.diff(np.append(starts, seen.shape[2]))
    slices = np.add.reduceat(seen, starts, axis=2) / sizes.astype(np.float32)
    real, imaginary = (rng.standard_normal(slices.shape, dtype=np.float32) * scanner.noise for _ in range(2))
    slices = np.hypot(slices + real, imaginary)
    if together > 1:  # back to the grid, between the middles of slices
        middles = starts + (sizes - 1) / 2
        place = np.interp(np.arange(seen.shape[2]), middles, np.arange(len(middles)))
        low = np.minimum(place.astype(int), len(middles) - 2)
        weight = (place - low).astype(np.float32)
        slices = slices[:, :, low] * (1 - weight) + slices[:, :, low + 1] * weight
    return np.asarray(slices * np.float32(scanner.scale), dtype=np.float32)


def spoil(rng: np.random.Generator, seen: Array) -> Array:
    """A scan (X, Y, Z) of a patient who moved: ghosts of the head along P, or a blur, each half of the time."""
    if rng.random() < 0.5:
        shift = int(rng.uniform(0.12, 0.3) * seen.shape[1])
        ghosts = np.roll(seen, shift, axis=1) + np.roll(seen, -shift, axis=1)
        return np.asarray(0.75 * seen + rng.uniform(0.15, 0.3) * ghosts, dtype=np.float32)
    return np.asarray(ndimage.gaussian_filter(seen, rng.uniform(0.01, 0.025) * np.array(seen.shape)), dtype=np.float32)
