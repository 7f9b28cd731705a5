"""Changes of training patches: where voxels come from, and how bright they are.

What a sample gets is drawn from its own NumPy generator, and nothing where a change is off. It is then done to a whole
batch at once, where the model is: a change of one sample follows from what was drawn for it alone, whoever else is in
the batch, and a sample that gets none stays as it is, bit for bit. Visits of a series share geometry, bias field, gamma
and missing modalities (one scanner, one place: what changes over time is the patient); noise is new in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

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
Size = tuple[int, int, int]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Changes:
    """What was drawn for one sample of C modalities; None: it has none of it."""

    mirrored: tuple[int, ...] = ()
    """Axes that are turned round as the sample is cut, before any other change."""
    dropped: tuple[int, ...] = ()
    """Modalities that are left out as it is cut."""
    matrix: Floats | None = None
    """(3, 3): offset from a patch's centre -> offset from its block's centre, voxels (D, H, W)."""
    bias: Floats | None = None
    """(C, WAVES, WAVES, WAVES): how much of each cosine; the largest logarithm of the field is in `strength`."""
    strength: Floats | None = None
    """(C,), with `bias`."""
    gamma: Floats | None = None
    """(C,): exponents."""
    noise: tuple[float, int] | None = None
    """Deviation, and the seed of PyTorch's generator that it comes from."""

    def block(self, size: Size) -> Size:
        """Size of the block that a patch of `size` is made from, not below that; both have one centre."""
        if self.matrix is None:
            return size
        reach = np.abs(self.matrix) @ (np.array(size) - 1) + 1
        depth, height, width = (
            edge + 2 * max(0, ceil((far - edge) / 2)) for edge, far in zip(size, reach.tolist(), strict=True)
        )
        return depth, height, width


def draw_changes(
    config: AugmentConfig,
    spacing: Sequence[float],
    present: npt.ArrayLike,
    rng: np.random.Generator,
    may_drop: npt.ArrayLike = True,
) -> Changes:
    """Draw a sample's changes; `spacing`, mm along (D, H, W), lets thick slices turn without shear.

    `present` is (C,), or (T, C) of visits, bool: which modalities there are. Of those one or more stays at each visit,
    and all but those that `may_drop`, (C,), bool.
    """
    present = np.atleast_2d(present)
    mirrored = tuple(axis for axis in VOXELS if config.flip and rng.random() < config.flip)
    turn, channels = np.eye(3), present.shape[1]
    if turned := _happens(config.rotation, config, rng):
        angles = rng.uniform(-config.rotation, config.rotation, 3)
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if scaled := _happens(config.scaling, config, rng):
        turn = turn / _factors(config.scaling, rng)
    edges = np.array(spacing)
    bias, gamma, noise = (_happens(strength, config, rng) for strength in (config.bias, config.gamma, config.noise))
    return Changes(
        mirrored=mirrored,
        matrix=turn * edges / edges[:, None] if turned or scaled else None,
        bias=rng.standard_normal((channels, WAVES, WAVES, WAVES), np.float32) if bias else None,
        strength=np.log1p(config.bias) * rng.uniform(0, 1, channels) if bias else None,
        gamma=_factors(config.gamma, rng, channels) if gamma else None,
        noise=(rng.uniform(0, config.noise), int(rng.integers(2**63))) if noise else None,
        dropped=_dropped(config.dropout, present, may_drop, rng) if config.dropout else (),
    )


def _dropped(
    chance: float, present: npt.NDArray[np.bool_], may_drop: npt.ArrayLike, rng: np.random.Generator
) -> tuple[int, ...]:
    there = np.flatnonzero(present.any(axis=0) & np.asarray(may_drop, bool))
    dropped = set(there[rng.random(len(there)) < chance].tolist())
    for own in map(np.flatnonzero, present):
        if dropped.issuperset(own.tolist()):
            dropped.remove(int(own[rng.integers(len(own))]))
    return tuple(sorted(dropped))


def _happens(strength: float, config: AugmentConfig, rng: np.random.Generator) -> bool:
    return strength > 0 and rng.random() < config.chance


def _factors(strength: float, rng: np.random.Generator, shape: int | None = None) -> Floats:
    """Factors between 1/(1 + strength) and 1 + strength, as often below 1 as above."""
    factors: Floats = np.exp(np.log1p(strength) * rng.uniform(-1, 1, shape))
    return factors


def turn(blocks: Sequence[Tensor], size: Size, changes: Sequence[Changes]) -> list[Tensor]:
    """Make patches (B, ..., *size), float32, of blocks (B, ..., D, H, W), of any dtype, with the same centres.

    The first are images, sampled linearly, and the second, if any, their masks, at the nearest voxel. What lies outside
    a block is 0. All are new tensors.
    """
    voxels, device = blocks[0].shape[-3:], blocks[0].device
    patches = [_middle(block, size).to(torch.float32, copy=True) for block in blocks]
    matrices = {row: each.matrix for row, each in enumerate(changes) if each.matrix is not None}
    if rows := list(matrices):
        # PyTorch counts half blocks from the centre, and W first.
        theta = np.stack([*matrices.values()]) * np.array(size) / np.array(voxels)[:, None]
        theta = np.pad(theta[:, ::-1, ::-1], ((0, 0), (0, 0), (0, 1)))
        grid = functional.affine_grid(_on(device, theta), [len(rows), 1, *size], align_corners=False)
        turned = _on(device, np.array(rows))
        for block, patch, mode in zip(blocks, patches, ("bilinear", "nearest"), strict=False):
            made = functional.grid_sample(block[turned].float().flatten(1, -4), grid, mode, align_corners=False)
            patch[turned] = made.reshape(len(rows), *patch.shape[1:])
    return patches


def _middle(block: Tensor, size: Size) -> Tensor:
    for axis, edge in zip(VOXELS, size, strict=True):
        block = block.narrow(axis, (block.shape[axis] - edge) // 2, edge)
    return block


def change_intensity(image: Tensor, changes: Sequence[Changes]) -> Tensor:
    """Give images (B, T, C, D, H, W), in their place, a bias field, another gamma and noise, and return them.

    Zero, outside the brain, stays zero. Bias and gamma are of signals, which z-scores are not: a modality's darkest
    voxel that is not 0 counts as no signal.
    """
    for name, change in (("bias", _brightened), ("gamma", _bent), ("noise", _noisy)):
        if rows := [row for row, each in enumerate(changes) if getattr(each, name) is not None]:
            changed = _on(image.device, np.array(rows))
            before = image[changed]
            brain = before != 0
            image[changed] = torch.where(brain, change(before, brain, [changes[row] for row in rows]), 0)
    return image


def _brightened(image: Tensor, brain: Tensor, changes: Sequence[Changes]) -> Tensor:
    """Times a smooth field, one a modality, made of a few cosines along each axis."""
    field = _on(image.device, np.stack([each.bias for each in changes if each.bias is not None]))
    for size in image.shape[-3:]:
        places = (torch.arange(size, device=image.device) + 0.5) / size * torch.pi
        waves = torch.stack([torch.cos(places * wave) for wave in range(WAVES)])
        field = torch.tensordot(field, waves, ([2], [0]))  # the axis that is done goes last
    largest = field.abs().amax(VOXELS, keepdim=True)
    strength = _on(image.device, np.stack([each.strength for each in changes if each.strength is not None]))
    field = torch.exp(field * (strength[..., None, None, None] / largest))[:, None]  # of all visits
    low, _ = _range(image, brain)
    return low + (image - low) * field


def _bent(image: Tensor, brain: Tensor, changes: Sequence[Changes]) -> Tensor:
    """Between the same ends, along another curve."""
    gamma = _on(image.device, np.stack([each.gamma for each in changes if each.gamma is not None]))
    low, high = _range(image, brain)
    width = (high - low).clamp(min=1e-6)  # of a modality with one value as well
    return low + width * ((image - low) / width).clamp(0, 1) ** gamma[:, None, :, None, None, None]


def _noisy(image: Tensor, _: Tensor, changes: Sequence[Changes]) -> Tensor:
    """With noise; each sample's own generator makes it the same in any batch."""
    noise = []
    for deviation, seed in (each.noise for each in changes if each.noise is not None):
        own = torch.Generator(image.device).manual_seed(seed)
        noise.append(deviation * torch.randn(image.shape[1:], generator=own, device=image.device))
    return image + torch.stack(noise)


def _range(image: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest value in the brain, of all visits, (B, 1, C, 1, 1, 1) each."""
    low, high = (torch.where(brain, image, empty) for empty in (torch.inf, -torch.inf))
    return low.amin((1, *VOXELS), keepdim=True), high.amax((1, *VOXELS), keepdim=True)


def _on(device: torch.device, numbers: Floats | npt.NDArray[np.int64]) -> Tensor:
    """Drawn numbers as fp32, or places in a batch, where the images are.

    The loop goes on while a GPU gets them; with a list as an index PyTorch would wait for all that the GPU has to do.
    """
    dtype = np.float32 if np.issubdtype(numbers.dtype, np.floating) else np.int64
    return torch.from_numpy(np.ascontiguousarray(numbers, dtype)).to(device, non_blocking=device.type != "cpu")
