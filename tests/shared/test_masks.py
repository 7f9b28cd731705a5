"""What Segmentation.metrics says of two masks."""

import math

import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice

from gliofed.shared.tasks.masks import ABSENT_MM, hd95
from gliofed.shared.tasks.segmentation import Segmentation

TASK = Segmentation()

REGIONS = ("ET", "TC", "WT")
NAMES = ("dice", "jaccard", "recall", "precision", "hd95")
MM = (1.0, 1.0, 1.0)
OVERLAPS = {
    "dice": lambda a, b: 2 * len(a & b) / (len(a) + len(b)),
    "jaccard": lambda a, b: len(a & b) / len(a | b),
    "recall": lambda a, b: len(a & b) / len(b),
    "precision": lambda a, b: len(a & b) / len(a),
}
"""Of sets of voxels, predicted and true, as in the definitions."""


def slow_surface(mask):
    """Voxels with a face to the background or to the outside; NumPy."""
    voxels = set(map(tuple, np.argwhere(mask).tolist()))
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return [v for v in voxels if any((v[0] + d, v[1] + h, v[2] + w) not in voxels for d, h, w in steps)]


def slow_hd95(prediction, target, spacing):
    """Each surface voxel against all of the other surface, in millimetres."""
    a, b = (np.array(slow_surface(mask)) * spacing for mask in (prediction, target))
    all_distances = np.linalg.norm(a[:, None] - b, axis=-1)
    return max(np.percentile(all_distances.min(axis=axis), 95) for axis in (0, 1))


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 3, 4, 5, 6), (2, 3, 4, 5, 6), (1, 4, 3, 4, 5, 6)])
def test_metrics_equal_sets_of_voxels_and_all_distances(shape):
    torch.manual_seed(0)
    prediction, target, spacing = torch.rand(shape) > 0.6, torch.rand(shape) > 0.5, (2.0, 0.5, 1.0)
    metrics = TASK.metrics(prediction, target, REGIONS, spacing)
    pairs = list(zip(prediction.reshape(-1, 3, 4, 5, 6).numpy(), target.reshape(-1, 3, 4, 5, 6).numpy(), strict=True))
    for region, suffix in enumerate(("et", "tc", "wt")):
        masks = [(a[region], b[region]) for a, b in pairs]
        voxels = [(set(np.flatnonzero(a)), set(np.flatnonzero(b))) for a, b in masks]
        for name, overlap in OVERLAPS.items():
            assert metrics[f"{name}_{suffix}"] == pytest.approx(np.mean([overlap(a, b) for a, b in voxels])), name
        distances = [slow_hd95(a, b, spacing) for a, b in masks]
        assert metrics[f"hd95_{suffix}"] == pytest.approx(np.mean(distances), rel=1e-6)
    for name in NAMES:
        assert metrics[name] == pytest.approx(np.mean([metrics[f"{name}_{r}"] for r in ("et", "tc", "wt")]))
    assert len(metrics) == 5 * 4


def blobs(*boxes):
    mask = torch.zeros(14, 15, 16, dtype=torch.bool)
    for d, h, w in boxes:
        mask[d, h, w] = True
    return mask


CASES = {
    "the same": (blobs(np.s_[2:6, 3:8, 4:9]), blobs(np.s_[2:6, 3:8, 4:9])),
    "one voxel each": (blobs(np.s_[1, 2, 3]), blobs(np.s_[9, 4, 5])),
    "filled to the edge": (blobs(np.s_[:, :, :]), blobs(np.s_[:7, :, 3:])),
    "one in the other": (blobs(np.s_[1:12, 2:13, 2:14]), blobs(np.s_[5:8, 6:9, 7:9])),
    "a far island": (blobs(np.s_[1:5, 1:6, 1:5], np.s_[13, 14, 15]), blobs(np.s_[2:6, 1:5, 2:6])),
}


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 of itself
@pytest.mark.parametrize("dense", [0.0, 10.0])  # by distance transform, by search tree
@pytest.mark.parametrize("spacing", [MM, (3.0, 0.7, 1.3)])
@pytest.mark.parametrize("case", CASES)
def test_hd95_equals_all_distances_and_monai(case, spacing, dense, monkeypatch):
    monkeypatch.setattr("gliofed.shared.tasks.masks.DENSE", dense)
    prediction, target = CASES[case]
    distance = hd95(prediction, target, spacing)
    assert distance == pytest.approx(slow_hd95(prediction.numpy(), target.numpy(), spacing), rel=1e-6)
    pair = prediction[None, None].float(), target[None, None].float()
    monai = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
    assert distance == pytest.approx(monai.item(), rel=1e-6)


def test_regions_share_a_box_and_keep_their_places():
    """All regions are cut by one box: metrics must be those of each region alone in the whole volume."""
    pairs = [CASES[case] for case in ("one voxel each", "one in the other", "a far island")]
    prediction, target = (torch.stack(masks) for masks in zip(*pairs, strict=True))
    metrics = TASK.metrics(prediction, target, REGIONS, MM)
    for region, (a, b) in zip(("et", "tc", "wt"), pairs, strict=True):
        alone = TASK.metrics(a[None], b[None], ("WT",), MM)
        assert {name: metrics[f"{name}_{region}"] for name in NAMES} == alone


def test_absent_regions_count_as_in_brats():
    present = torch.ones(2, 2, 2, dtype=torch.bool)
    absent = ~present
    prediction, target = torch.stack([absent, present, absent]), torch.stack([absent, absent, present])
    metrics = TASK.metrics(prediction, target, REGIONS, MM)
    for name in ("dice", "jaccard", "recall", "precision"):
        assert [metrics[f"{name}_{r}"] for r in ("et", "tc", "wt")] == [1, 0, 0], name
    assert [metrics[f"hd95_{r}"] for r in ("et", "tc", "wt")] == [0, ABSENT_MM, ABSENT_MM]
    assert pytest.approx(math.dist((0, 0, 0), (240, 240, 155)), abs=0.005) == ABSENT_MM
    monai = compute_dice(prediction[None].float(), target[None].float(), ignore_empty=False)
    assert monai.tolist() == [[1, 0, 0]]


def test_no_region_at_all_is_right():
    nothing = torch.zeros(1, 3, 4, 4, 4)
    metrics = TASK.metrics(nothing, nothing, REGIONS, MM)
    assert all(value == (0 if name.startswith("hd95") else 1) for name, value in metrics.items())


def test_one_region_has_no_names_by_region():
    mask = torch.ones(1, 1, 2, 2, 2)
    assert TASK.metrics(mask, mask, ("WT",), MM) == {"dice": 1, "jaccard": 1, "recall": 1, "precision": 1, "hd95": 0}


def test_metrics_refuse_other_shapes():
    mask = torch.ones(1, 3, 2, 2, 2)
    with pytest.raises(ValueError, match="R=2: TC, WT"):
        TASK.metrics(mask, mask, ("TC", "WT"), MM)
    with pytest.raises(ValueError, match="same shape"):
        TASK.metrics(mask, mask[..., :1], REGIONS, MM)
