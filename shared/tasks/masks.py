"""How well masks agree: overlap, and the distance between surfaces."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliofed.shared.data.transforms import bounding_box

Spacing = tuple[float, float, float]
Affine = npt.NDArray[np.float64]
"""(4, 4): indices (d, h, w) to mm."""

ABSENT_MM = 373.13
"""HD95 of a region that is in one mask only: the diagonal of BraTS' 240 x 240 x 155 mm, a usual penalty there."""

SAME_VOXEL = 0.25
"""Voxels by which grids of two visits may differ beyond whole ones: rounding in headers, not another place."""

DENSE = 0.05
"""Share of surface voxels from which a distance transform is faster than a search tree: noise, as before training."""


def compare(predicted: Tensor, true: Tensor, spacing: Spacing) -> dict[str, Tensor]:
    """Dice, Jaccard, recall, precision and HD95 (mm) of two masks (R, D, H, W), bool; each (R,), float64, never NaN.

    `spacing` is a voxel's edge in mm along D, H, W. A region that is absent in both masks counts 1, and 0 mm; in one of
    them 0, and ABSENT_MM.
    """
    from monai.metrics.confusion_matrix import get_confusion_matrix  # MONAI takes seconds; not every message needs it

    # A tumour is a small part of a head, and less is faster. Beyond the edge is background, for MONAI as well.
    box = bounding_box((predicted | true).any(dim=0).numpy())
    predicted, true = predicted[:, *box], true[:, *box]
    # As uint8: MONAI adds the masks, and True + True is not 2.
    tp, fp, _, fn = get_confusion_matrix(predicted[None].byte(), true[None].byte())[0].double().unbind(-1)
    absent = tp + fp + fn == 0

    def share(whole: Tensor) -> Tensor:
        return torch.where(absent, 1.0, tp / whole.clamp(min=1))

    distances = [hd95(*pair, spacing) for pair in zip(predicted, true, strict=True)]
    return {
        "dice": torch.where(absent, 1.0, 2 * tp / (2 * tp + fp + fn).clamp(min=1)),
        "jaccard": share(tp + fp + fn),
        "recall": share(tp + fn),
        "precision": share(tp + fp),
        "hd95": torch.tensor(distances, dtype=torch.float64),
    }


def dice_on_change(predicted: Tensor, true: Tensor, before: Tensor) -> Tensor:
    """Dice of two masks (R, D, H, W), bool, in the voxels in which `true` differs from `before`, of the visit before.

    (R,), float64. NaN of a region that did not change. One that only shrank is absent from `true` there: 1 if nothing
    of it is predicted in those voxels, else 0, as in `compare`. A mask that stays as it was scores 0.
    """
    changed = true ^ before
    predicted, true = predicted & changed, true & changed
    total = (predicted.sum(dim=(1, 2, 3)) + true.sum(dim=(1, 2, 3))).double()
    dice = torch.where(total > 0, 2 * (predicted & true).sum(dim=(1, 2, 3)) / total.clamp(min=1), 1.0)
    return torch.where(changed.flatten(1).any(dim=1), dice, torch.nan)


def on_grid(mask: Tensor, grid: Affine, other: Affine, shape: Sequence[int]) -> Tensor | None:
    """`mask` (R, D, H, W) of `grid` on another of `shape` (D, H, W), 0 beyond its edge; affines give indices in mm.

    None where the one is not the other moved by whole voxels: then the scans are not registered.
    """
    moved = np.linalg.solve(other, grid)
    shift = np.rint(moved[:3, 3]).astype(int)
    whole = np.eye(4)
    whole[:3, 3] = shift
    corners = np.array([[*corner, 1] for corner in product(*((0, side) for side in mask.shape[1:]))])
    apart = (corners @ (moved - whole).T)[:, :3]  # voxels
    if not np.linalg.norm(apart, axis=1).max() < SAME_VOXEL:
        return None
    placed = torch.zeros(mask.shape[0], *shape, dtype=mask.dtype)
    sides = [(max(0, s), min(new, s + old)) for s, old, new in zip(shift, mask.shape[1:], shape, strict=True)]
    there = tuple(slice(low, max(low, high)) for low, high in sides)
    here = tuple(slice(low - s, max(low, high) - s) for (low, high), s in zip(sides, shift, strict=True))
    placed[:, *there] = mask[:, *here]
    return placed


def hd95(predicted: Tensor, true: Tensor, spacing: Spacing) -> float:
    """Robust Hausdorff distance in mm of two masks (D, H, W), bool: the larger 95th percentile of both directions.

    Equal to monai.metrics.hausdorff_distance.compute_hausdorff_distance: that one warns of itself in MONAI 1.6, fails
    over 16 million surface voxels, takes five times as long for noise, and for a mask spends most of it on finding the
    surface: the voxels of the mask with a face on the background.
    """
    from scipy.ndimage import binary_erosion

    if not predicted.any() or not true.any():
        return ABSENT_MM if predicted.any() or true.any() else 0.0
    surfaces = [mask ^ binary_erosion(mask) for mask in (predicted.numpy(), true.numpy())]
    directions = (surfaces, surfaces[::-1])
    return max(float(np.percentile(_distances(start, end, spacing), 95)) for start, end in directions)


def _distances(start: npt.NDArray[np.bool_], end: npt.NDArray[np.bool_], spacing: Spacing) -> npt.NDArray[np.floating]:
    """Millimetres from each voxel of the surface `start` to the nearest of `end`."""
    from monai.metrics.utils import get_surface_distance
    from scipy.ndimage import distance_transform_edt

    distances: npt.NDArray[np.floating]
    if np.count_nonzero(start) + np.count_nonzero(end) > DENSE * start.size:
        distances = distance_transform_edt(~end, sampling=spacing)[start]
    else:
        distances = get_surface_distance(start, end, "euclidean", spacing)
    return distances
