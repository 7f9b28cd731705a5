import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gliofed.shared.config import DataConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.models.clstm_unet3d import CLSTMUNet3D
from gliofed.shared.models.unet import UNet3D
from gliofed.shared.tasks.masks import dice_on_change, on_grid
from gliofed.shared.tasks.segmentation import Segmentation

TASK = Segmentation()

MM = (1.0, 1.0, 1.0)

CPU = torch.device("cpu")


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
                overlap, total = overlap + p * true, total + p * p + true
                entropies.append(-math.log(p) if true else -math.log(1 - p))
            dices.append((1 if true_region.any() else 0.2) * (1 - (2 * overlap + 1) / (total + 1)))
        losses.append(sum(dices) / len(dices) + 0.3 * sum(entropies) / len(entropies))
        if true_sample.dim() == 5 and len(true_sample) > 1:
            losses[-1] += 0.5 * slow_change_loss(sample, true_sample)
    return sum(losses) / len(losses)


def slow_change_loss(sample, true_sample):
    """Of a series (T, R, D, H, W): the soft Dice of each later frame and region in the voxels that changed."""
    dices = []
    for frame in range(1, len(true_sample)):
        for region in range(true_sample.shape[1]):
            overlap, total = 0.0, 0.0
            voxels = (
                each[region].flatten().tolist() for each in (sample[frame], true_sample[frame], true_sample[frame - 1])
            )
            for logit, true, before in zip(*voxels, strict=True):
                if true != before:
                    p = 1 / (1 + math.exp(-logit))
                    overlap, total = overlap + p * true, total + p * p + true
            dices.append(1 - (2 * overlap + 1) / (total + 1))
    return sum(dices) / len(dices)


@pytest.mark.parametrize(
    "shape", [(2, 3, 3, 4, 5), (2, 2, 3, 3, 4, 5), (1, 3, 2, 3, 4, 5), (2, 1, 3, 3, 4, 5)]
)  # series too
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


def test_weight_multiplies_each_samples_loss():
    """The mean is over samples and not over weights: a site with one grade would else train as if it had none."""
    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 4, 4, 4), torch.rand(3, 2, 4, 4, 4) > 0.9
    weight = torch.tensor([0.5, 0.0, 3.0])
    alone = torch.stack([TASK.loss(a[None], b[None]) for a, b in zip(logits, target, strict=True)])
    assert_close(TASK.loss(logits, target, weight), (0.5 * alone[0] + 3 * alone[2]) / 3)


@pytest.mark.parametrize("shape", [(2, 3, 3, 4, 5), (2, 2, 3, 3, 4, 5)])  # volumes, series
def test_guesses_count_the_same(shape):
    """Four guesses of two samples, so that guesses and samples cannot be taken for each other."""
    torch.manual_seed(0)
    guesses, target, weight = torch.randn(4, *shape), torch.rand(shape) > 0.7, torch.tensor([1.0, 2.0])
    each = torch.stack([TASK.loss(guess, target, weight) for guess in guesses])
    assert_close(TASK.loss(guesses.transpose(0, 1), target, weight), each.mean())


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
    assert loss.item() == pytest.approx(0.3 * math.log(2) + 1 - 0.5 * 2 / (0.25 + 1), rel=1e-4)


class Voxelwise(nn.Module):
    """Two regions from each voxel alone."""

    def forward(self, x):
        return torch.cat([2 * x, x - 1], dim=-4)


@pytest.mark.parametrize("patch", [(8, 8, 8), (6, 20, 7), (20, 20, 20)])
@pytest.mark.parametrize("shape", [(1, 1, 11, 9, 10), (2, 1, 11, 9, 10), (1, 3, 1, 11, 9, 10)])
def test_windows_put_every_voxel_back(shape, patch):
    """A model without a neighbourhood gives the same in windows as at once, for every channel, frame and voxel."""
    x = torch.randn(shape)
    assert_close(TASK.logits(Voxelwise(), (x,), replace(DATA, patch=patch)), Voxelwise()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model", "shape"), [(UNet3D, (1, 2)), (CLSTMUNet3D, (1, 3, 2))])
def test_volume_that_fits_the_patch_is_one_forward_pass(model, shape):
    torch.manual_seed(0)
    net, x = model(2, 3, (8, 16)), torch.randn(*shape, 8, 7, 6)
    for patch in ((8, 7, 6), (9, 9, 9)):
        assert torch.equal(TASK.logits(net, (x,), replace(DATA, patch=patch)), net(x))


@pytest.mark.parametrize(("model", "shape"), [(UNet3D, (1, 2)), (CLSTMUNet3D, (1, 3, 2))])
def test_models_see_windows_as_they_see_patches(model, shape):
    """Where windows do not overlap, the logits are those of the window alone."""
    torch.manual_seed(0)
    net, x = model(2, 3, (8, 16)), torch.randn(*shape, 16, 8, 8)
    logits = TASK.logits(net, (x,), replace(DATA, patch=(8, 8, 8)))
    assert logits.shape == (*shape[:-1], 3, 16, 8, 8)
    assert not logits.requires_grad
    # Windows start at 0, 4 and 8: the first four planes are the first window's alone, the last four the last one's.
    assert_close(logits[..., :4, :, :], net(x[..., :8, :, :])[..., :4, :, :])
    assert_close(logits[..., 12:, :, :], net(x[..., 8:, :, :])[..., 4:, :, :])


DATA = DataConfig(
    modalities=("T1",), regions=("TC", "WT"), window=2, spacing=None, patch=(6, 6, 6), validation=0.2, split_seed=0
)


def visit(seed, spacing):
    """(1, C, D, H, W) and (1, R, D, H, W), larger than the patch."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 1, 8, 9, 7, generator=rng)
    return Batch(image, (torch.rand(1, 2, 8, 9, 7, generator=rng) > 0.5).float(), spacing=spacing)


def test_a_patients_measure_is_the_mean_over_visits():
    """Each visit has its own spacing; loss and masks are of whole volumes, not of windows."""
    visits = [visit(0, (1.0, 1.0, 1.0)), visit(1, (3.0, 1.0, 0.5))]
    measured = TASK.measure(Voxelwise(), iter(visits), DATA, torch.device("cpu"))
    rows = []
    for one in visits:
        logits = Voxelwise()(one.image)
        loss = slow_loss(logits, one.target)
        rows.append({"loss": loss} | TASK.metrics(logits > 0, one.target, ("TC", "WT"), one.spacing))
    assert measured == {name: pytest.approx(np.mean([row[name] for row in rows]), rel=1e-5) for name in rows[0]}


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_a_broken_model_says_is_no_mask(broken):
    """It would pass for an empty one, which scores 1 where there is no tumour: a model that diverged looked usable."""
    one = visit(0, MM)
    empty = replace(one, target=torch.zeros_like(one.target))
    measured = TASK.measure(lambda image: Voxelwise()(image) * broken, [empty], DATA, torch.device("cpu"))
    assert "dice_wt" in measured and all(map(math.isnan, measured.values()))


def test_a_visit_of_a_short_window_counts_as_much():
    """Three visits in windows of two: the last is alone in its window."""
    visits = [visit(seed, MM) for seed in range(3)]
    pairs = [(one.image, one.target) for one in visits]
    first = Batch(*(torch.stack(parts, dim=1) for parts in zip(*pairs[:2], strict=True)), spacing=MM)
    last = Batch(*(part[:, None] for part in pairs[2]), spacing=MM)
    alone = TASK.measure(Voxelwise(), visits, DATA, torch.device("cpu"))
    assert TASK.measure(Voxelwise(), [first, last], DATA, torch.device("cpu")) == pytest.approx(alone, rel=1e-5)


def test_a_site_is_the_mean_of_its_patients():
    patients = [{"loss": 1.0, "dice": 0.5}, {"loss": 2.0, "dice": 1.0}]
    assert TASK.summarise(patients) == {"loss": 1.5, "dice": 0.75}
    assert TASK.summarise([]) == {}


def test_all_sites_are_the_mean_over_patients_of_what_is_finite():
    """Metrics come from others: what is missing, NaN or of nobody does not enter."""
    sites = [({"dice": 0.5, "loss": math.nan}, 1), ({"dice": 1.0, "loss": 2.0}, 3), ({}, 5), ({"dice": 0.0}, 0)]
    assert TASK.pool(sites, DATA) == {"dice": 0.875, "loss": 2.0}
    assert TASK.pool([({"loss": math.inf}, 2)], DATA) == {}
    assert TASK.pool([], DATA) == {}


@pytest.mark.parametrize(
    "claim", [{"dice": 1e9}, {"dice": 1.01}, {"dice": -0.1}, {"hd95": -1.0}, {"loss": -2.0}, {"dice_lung": 0.5}]
)
def test_a_site_with_a_metric_that_cannot_be_does_not_enter(claim):
    """With 10^9 patients it would otherwise be the mean of all."""
    honest = ({"dice": 0.5, "loss": 1.0}, 3)
    assert TASK.pool([honest, ({"dice": 1.0, "loss": 0.0} | claim, 10**9)], DATA) == {"dice": 0.5, "loss": 1.0}
    assert next(iter(claim)) in TASK.impossible(claim, 3, DATA)


def test_what_an_honest_site_sends_can_be():
    """Its loss may be infinite, and distances are of any size; regions have metrics of their own."""
    metrics = {"loss": math.inf, "dice": 1.0, f"dice_{DATA.regions[0].lower()}": 0.0, "hd95": 373.13}
    assert TASK.impossible(metrics, 3, DATA) is None


def test_outputs_are_the_regions():
    assert TASK.outputs(DATA) == 2
    assert TASK.headline in TASK.metrics(torch.ones(2, 1, 1, 1), torch.ones(2, 1, 1, 1), DATA.regions, MM)


def test_measure_slides_windows_over_what_the_patch_does_not_hold():
    """A volume at 1 mm does not fit a GPU at once."""
    seen = []

    def model(image):
        seen.append(tuple(image.shape[-3:]))
        return image

    data = SimpleNamespace(patch=(8, 8, 8), regions=("wt",))
    volume = Batch(torch.randn(1, 1, 12, 8, 8), torch.zeros(1, 1, 12, 8, 8), spacing=(1, 1, 1))
    TASK.measure(model, [volume], data, torch.device("cpu"))
    assert set(seen) == {(8, 8, 8)}


def slow_change(predicted, true, before):
    """One region, one voxel at a time; None where nothing changed."""
    found = []
    for guess, now, then in zip(predicted.tolist(), true.tolist(), before.tolist(), strict=True):
        voxels = [
            (g, n)
            for plane in zip(guess, now, then, strict=True)
            for row in zip(*plane, strict=True)
            for g, n, t in zip(*row, strict=True)
            if n != t
        ]
        both, either = sum(g and n for g, n in voxels), sum(g + n for g, n in voxels)
        found.append((2 * both / either if either else 1.0) if voxels else None)
    return found


@pytest.mark.parametrize("windows", [False, True])
def test_dice_on_change_equals_loops_and_is_of_the_last_two_visits(windows):
    """A frame by frame model and one that reads series must be measured on the very same voxels."""
    visits = [visit(seed, MM) for seed in range(3)]
    visits[2].target[0, 1] = visits[1].target[0, 1]  # WT stays as it was
    volumes = visits
    if windows:  # the last visit is alone in its window
        pairs = [(one.image, one.target) for one in visits]
        volumes = [Batch(*(torch.stack(parts, 1) for parts in zip(*pairs[:2], strict=True)), spacing=MM)]
        volumes.append(Batch(*(part[:, None] for part in pairs[2]), spacing=MM))
    measured = TASK.measure(Voxelwise(), volumes, DATA, CPU)
    masks = (Voxelwise()(visits[2].image) > 0)[0]
    tc, wt = slow_change(masks, visits[2].target[0].bool(), visits[1].target[0].bool())
    assert wt is None and "dice_change_wt" not in measured
    assert measured["dice_change"] == measured["dice_change_tc"] == pytest.approx(tc)


def test_whoever_sees_no_change_is_in_no_mean_of_it():
    """One visit, or two that are alike: there is nothing to be right about."""
    same = visit(0, MM)
    for volumes in ([same], [same, same]):
        assert not any("change" in name for name in TASK.measure(Voxelwise(), volumes, DATA, CPU))
    patients = [{"dice": 0.5, "dice_change": 0.2}, {"dice": 1.0}]
    assert TASK.summarise(patients) == {"dice": 0.75, "dice_change": 0.2}
    assert TASK.impossible({"dice_change_tc": 0.5, "dice_change": 1.0}, 2, DATA) is None
    assert "dice_change" in TASK.impossible({"dice_change": 1.5}, 2, DATA)


def test_a_copied_mask_scores_nothing_on_change_and_a_region_that_went_is_all_or_nothing():
    before, true = torch.zeros(2, 4, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    before[:, :2], true[0, 1:3] = True, True
    gone = torch.zeros_like(true)
    assert dice_on_change(before, true, before).tolist() == [0.0, 0.0]
    assert dice_on_change(true, true, before).tolist() == [1.0, 1.0]
    assert dice_on_change(gone, true, before).tolist() == [0.0, 1.0]


def test_a_broken_model_has_no_dice_on_change():
    measured = TASK.measure(lambda image: Voxelwise()(image) * math.nan, [visit(0, MM), visit(1, MM)], DATA, CPU)
    assert math.isnan(measured["dice_change"])


def placed(corner, turn=0.0, edges=MM):
    """The affine of a crop that begins at voxel `corner` of a scan with these edges, turned about an axis."""
    affine = np.diag([*edges, 1.0])
    affine[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ affine[:2, :2]
    affine[:3, 3] = affine[:3, :3] @ np.array(corner)
    return affine


def test_visits_that_were_cropped_one_by_one_are_compared_where_they_lie():
    """A model that reads one visit at a time has each in a box of its own: shifted masks would all be change."""
    whole = torch.rand(2, 12, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.5
    whole[:, :2] = whole[:, 10:] = False
    first, last = whole[:, 2:10, 1:10, 3:10], whole[:, 1:10, 2:11, 0:9]
    inside = torch.zeros_like(whole)
    inside[:, 2:10, 1:10, 3:10] = first
    for turn in (0.0, 0.3):
        at = placed((2, 1, 3), turn=turn, edges=(1.0, 2.0, 3.0)), placed((1, 2, 0), turn=turn, edges=(1.0, 2.0, 3.0))
        assert torch.equal(on_grid(first, *at, last.shape[1:]), inside[:, 1:10, 2:11, 0:9])
    for other in (placed((1.5, 2, 0)), placed((1, 2, 0), turn=0.1), placed((1, 2, 0), edges=(1.1, 1.0, 1.0))):
        assert on_grid(first, placed((2, 1, 3)), other, last.shape[1:]) is None  # not registered
