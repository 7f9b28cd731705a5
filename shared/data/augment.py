"""Changes of training patches: where voxels come from, and how bright they are.

All is drawn from the NumPy generator that is given, and nothing where a change is off, so that a run without changes is
as if this module were not there. Visits of a series share geometry, bias field, gamma and missing modalities (one
scanner, one place: what changes over time is the patient); noise is new in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from gliofed.shared.config import AugmentConfig

WAVES = 3
"""Cosines along each axis that a bias field is made of, from a constant to one whole wave."""
VOXELS = (-3, -2, -1)
"""The axes (D, H, W) of any tensor here."""


@dataclass(frozen=True)
class Geometry:
    """Which voxel goes where: the same for an image, its mask and all visits."""

    matrix: npt.NDArray[np.float64] | None
    """(3, 3): offset from a patch's centre -> offset from its block's centre, voxels (D, H, W); None: the same."""
    mirrored: tuple[int, ...]
    """Axes that are turned round."""

    def block(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Size of the block that a patch of `size` is made from; both have one centre, an odd size stays odd."""
        if self.matrix is None:
            return size
        reach = np.abs(self.matrix) @ (np.array(size) - 1) + 1
        depth, height, width = (
            int(edge + 2 * np.ceil((far - edge) / 2)) for edge, far in zip(size, reach, strict=True)
        )
        return depth, height, width

    def patch(self, block: Tensor, size: Sequence[int], nearest: bool = False) -> Tensor:
        """Make the patch (..., *size) out of a block (..., D, H, W) with its centre; linear, or nearest for a mask.

        What lies outside the block is 0.
        """
        if self.matrix is not None:
            voxels = block.shape[-3:]
            # PyTorch counts half blocks from the centre, and W first.
            theta = self.matrix * np.array(size) / np.array(voxels)[:, None]
            theta = np.append(theta[::-1, ::-1], np.zeros((3, 1)), axis=1)[None].astype(np.float32)
            grid = functional.affine_grid(torch.from_numpy(theta), [1, 1, *size], align_corners=False)
            mode = "nearest" if nearest else "bilinear"
            made = functional.grid_sample(block.reshape(1, -1, *voxels), grid, mode, align_corners=False)
            block = made.reshape(*block.shape[:-3], *size)
        return block.flip(self.mirrored) if self.mirrored else block


def draw_geometry(config: AugmentConfig, spacing: Sequence[float], rng: np.random.Generator) -> Geometry:
    """Draw mirrors, a turn and a scale; `spacing`, mm along (D, H, W), lets thick slices turn without shear."""
    mirrored = tuple(axis for axis in VOXELS if config.flip and rng.random() < config.flip)
    turn = np.eye(3)
    if turned := _happens(config.rotation, config, rng):
        angles = rng.uniform(-config.rotation, config.rotation, 3)
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if scaled := _happens(config.scaling, config, rng):
        turn = turn / _factors(config.scaling, rng)
    edges = np.array(spacing)
    return Geometry(turn * edges / edges[:, None] if turned or scaled else None, mirrored)


def change_intensity(image: Tensor, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """Give the image (..., C, D, H, W) a bias field, another gamma and noise; zero, outside the brain, stays zero.

    Bias and gamma are of signals, which z-scores are not: a modality's darkest voxel that is not 0 counts as no signal.
    """
    bias, gamma, noise = (_happens(strength, config, rng) for strength in (config.bias, config.gamma, config.noise))
    if not (bias or gamma or noise):
        return image
    visits = image.reshape(-1, *image.shape[-4:])  # (T, C, D, H, W)
    brain = visits != 0
    if bias:
        low, _ = _range(visits, brain)
        visits = low + (visits - low) * _field(visits.shape[1:], config.bias, rng)
    if gamma:
        low, high = _range(visits, brain)
        width = (high - low).clamp(min=1e-6)  # of a modality with one value as well
        exponent = torch.from_numpy(_factors(config.gamma, rng, (len(low), 1, 1, 1))).float()
        visits = low + width * ((visits - low) / width).clamp(0, 1) ** exponent
    if noise:
        deviation = rng.uniform(0, config.noise)
        visits = visits + deviation * torch.from_numpy(rng.standard_normal(visits.shape, np.float32))
    return torch.where(brain, visits, 0).reshape(image.shape)


def drop_modalities(
    image: Tensor, present: Sequence[bool], config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, list[bool]]:
    """Set modalities of an image (..., C, D, H, W) to 0, and say which are left; one of those present always is."""
    if not config.dropout:
        return image, list(present)
    there = np.flatnonzero(present)
    dropped = there[rng.random(len(there)) < config.dropout]
    if len(dropped) == len(there):
        dropped = np.delete(dropped, rng.integers(len(there)))
    left = [here and channel not in dropped for channel, here in enumerate(present)]
    return image.index_fill(-4, torch.from_numpy(dropped), 0), left


def _happens(strength: float, config: AugmentConfig, rng: np.random.Generator) -> bool:
    return strength > 0 and rng.random() < config.chance


def _factors(strength: float, rng: np.random.Generator, shape: tuple[int, ...] = ()) -> npt.NDArray[np.float64]:
    """Factors between 1/(1 + strength) and 1 + strength, as often below 1 as above."""
    factors: npt.NDArray[np.float64] = np.exp(np.log1p(strength) * rng.uniform(-1, 1, shape))
    return factors


def _range(visits: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest value in the brain, of all visits, (C, 1, 1, 1) each."""
    axes = (0, -3, -2, -1)
    low, high = (torch.where(brain, visits, empty) for empty in (torch.inf, -torch.inf))
    return low.amin(axes)[:, None, None, None], high.amax(axes)[:, None, None, None]


def _field(shape: Sequence[int], strength: float, rng: np.random.Generator) -> Tensor:
    """Draw smooth factors (C, D, H, W), one field a modality, made of a few cosines along each axis."""
    field = torch.from_numpy(rng.standard_normal((shape[0], WAVES, WAVES, WAVES), np.float32))
    for size in shape[1:]:
        places = (torch.arange(size) + 0.5) / size * torch.pi
        waves = torch.stack([torch.cos(places * wave) for wave in range(WAVES)])
        field = torch.tensordot(field, waves, ([1], [0]))  # the axis that is done goes last
    largest = field.abs().amax(VOXELS, keepdim=True)
    amount = np.log1p(strength) * torch.from_numpy(rng.uniform(0, 1, (shape[0], 1, 1, 1))).float()
    return torch.exp(field * (amount / largest))
