import math

import numpy as np
import pytest
import torch
from monai.metrics.meandice import compute_dice
from torch import nn
from torch.testing import assert_close

from shared.models.clstm_unet3d import CLSTMUNet3D
from shared.models.unet import UNet3D
from shared.tasks import TASKS

TASK = TASKS["segmentation"]
REGIONS = ("ET", "TC", "WT")


def slow_loss(logits, target):
    """One sample, one frame, one region, one voxel at a time."""
    losses = []
    for sample, true_sample in zip(logits, target, strict=True):
        dices, entropies = [], []
        maps = zip(sample.flatten(0, -4), true_sample.flatten(0, -4), strict=True)  # frames and regions in one
        for region, true_region in maps:
            overlap, total = 0.0, 0.0
            for logit, true in zip(region.flatten().tolist(), true_region.flatten().tolist(), strict=True):
                p = 1 / (1 + math.exp(-logit))
                overlap, total = overlap + p * true, total + p + true
                entropies.append(-math.log(p) if true else -math.log(1 - p))
            dices.append(1 - (2 * overlap + 1) / (total + 1))
        losses.append(sum(dices) / len(dices) + sum(entropies) / len(entropies))
    return sum(losses) / len(losses)


def slow_dice(prediction, target):
    """Sets of voxels, as in the definition; NumPy."""
    a, b = set(np.flatnonzero(prediction)), set(np.flatnonzero(target))
    return 1.0 if not a and not b else 2 * len(a & b) / (len(a) + len(b))


@pytest.mark.parametrize("shape", [(2, 3, 3, 4, 5), (2, 2, 3, 3, 4, 5)])  # volumes, series
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
def test_loss_equals_loops(shape, dtype):
    torch.manual_seed(0)
    logits, target = torch.randn(shape), torch.rand(shape) > 0.7
    target[0, 0] = False  # an absent region
    assert TASK.loss(logits, target.to(dtype)).item() == pytest.approx(slow_loss(logits, target), rel=1e-5)


def test_loss_does_not_mix_samples():
    """DP clips each patient's gradient: the batch's loss must be the mean of the samples' own."""
    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 4, 4, 4), torch.rand(3, 2, 4, 4, 4) > 0.9
    alone = torch.stack([TASK.loss(a[None], b[None]) for a, b in zip(logits, target, strict=True)])
    assert_close(TASK.loss(logits, target), alone.mean())


def test_loss_is_finite_for_sure_and_wrong_logits_and_zero_for_right_ones():
    target = torch.zeros(1, 1, 4, 4, 4)
    target[..., :2] = 1
    right = (2 * target - 1) * 200
    assert TASK.loss(right, target) == 0
    wrong = (-right).requires_grad_()
    loss = TASK.loss(wrong, target)
    loss.backward()
    assert loss.isfinite()
    assert wrong.grad.isfinite().all()
    assert TASK.loss(torch.full_like(target, -200), 0 * target) == 0  # rightly nothing


def test_half_precision_logits_lose_nothing_in_the_sums():
    """96^3 voxels at probability one half: fp16 would overflow at 65,504."""
    logits = torch.zeros(1, 1, 96, 96, 96, dtype=torch.float16)
    loss = TASK.loss(logits, torch.ones_like(logits))
    assert loss.item() == pytest.approx(math.log(2) + 1 - 2 / 3, rel=1e-4)


def test_predict_is_the_sigmoid_above_one_half():
    logits = torch.randn(1, 3, 4, 4, 4)
    assert torch.equal(TASK.predict(logits), logits.sigmoid() > 0.5)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (1, 3, 4, 5, 6), (2, 3, 4, 5, 6), (1, 4, 3, 4, 5, 6)])
def test_dice_equals_sets_of_voxels(shape):
    torch.manual_seed(0)
    prediction, target = torch.rand(shape) > 0.5, torch.rand(shape) > 0.5
    metrics = TASK.metrics(prediction, target, REGIONS)
    pairs = list(zip(prediction.reshape(-1, 3, 4, 5, 6).numpy(), target.reshape(-1, 3, 4, 5, 6).numpy(), strict=True))
    for region, name in enumerate(("dice_et", "dice_tc", "dice_wt")):
        assert metrics[name] == pytest.approx(np.mean([slow_dice(a[region], b[region]) for a, b in pairs]))
    assert metrics["dice"] == pytest.approx(np.mean([metrics[f"dice_{r}"] for r in ("et", "tc", "wt")]))


def test_dice_of_absent_regions_is_that_of_brats_and_monai():
    present = torch.ones(2, 2, 2, dtype=torch.bool)
    absent = ~present
    prediction, target = torch.stack([absent, present, absent]), torch.stack([absent, absent, present])
    metrics = TASK.metrics(prediction, target, REGIONS)
    assert metrics == {"dice": pytest.approx(1 / 3), "dice_et": 1, "dice_tc": 0, "dice_wt": 0}
    monai = compute_dice(prediction[None].float(), target[None].float(), ignore_empty=False)
    assert monai.tolist() == [[1, 0, 0]]


def test_one_region_has_one_number():
    mask = torch.ones(1, 1, 2, 2, 2)
    assert TASK.metrics(mask, mask, ("WT",)) == {"dice": 1}


def test_metrics_refuse_other_shapes():
    mask = torch.ones(1, 3, 2, 2, 2)
    with pytest.raises(ValueError, match="R=2: TC, WT"):
        TASK.metrics(mask, mask, ("TC", "WT"))
    with pytest.raises(ValueError, match="same shape"):
        TASK.metrics(mask, mask[..., :1], REGIONS)


class Voxelwise(nn.Module):
    """Two regions from each voxel alone."""

    def forward(self, x):
        return torch.cat([2 * x, x - 1], dim=-4)


@pytest.mark.parametrize("patch", [(8, 8, 8), (6, 20, 7), (20, 20, 20)])
@pytest.mark.parametrize("shape", [(1, 1, 11, 9, 10), (2, 1, 11, 9, 10), (1, 3, 1, 11, 9, 10)])
def test_windows_put_every_voxel_back(shape, patch):
    """A model without a neighbourhood gives the same in windows as at once, for every channel, frame and voxel."""
    x = torch.randn(shape)
    assert_close(TASK.infer(Voxelwise(), x, patch), Voxelwise()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model", "shape"), [(UNet3D, (1, 2)), (CLSTMUNet3D, (1, 3, 2))])
def test_volume_that_fits_the_patch_is_one_forward_pass(model, shape):
    torch.manual_seed(0)
    net, x = model(2, 3, (8, 16)), torch.randn(*shape, 8, 7, 6)
    for patch in ((8, 7, 6), (9, 9, 9)):
        assert torch.equal(TASK.infer(net, x, patch), net(x))


@pytest.mark.parametrize(("model", "shape"), [(UNet3D, (1, 2)), (CLSTMUNet3D, (1, 3, 2))])
def test_models_see_windows_as_they_see_patches(model, shape):
    """Where windows do not overlap, the logits are those of the window alone."""
    torch.manual_seed(0)
    net, x = model(2, 3, (8, 16)), torch.randn(*shape, 16, 8, 8)
    logits = TASK.infer(net, x, (8, 8, 8))
    assert logits.shape == (*shape[:-1], 3, 16, 8, 8)
    assert not logits.requires_grad
    # Windows start at 0, 4 and 8: the first four planes are the first window's alone, the last four the last one's.
    assert_close(logits[..., :4, :, :], net(x[..., :8, :, :])[..., :4, :, :])
    assert_close(logits[..., 12:, :, :], net(x[..., 8:, :, :])[..., 4:, :, :])
