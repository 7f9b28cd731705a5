from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gliofed.shared.tasks.means import LOSS, Range, out_of_range, over_patients
from gliofed.shared.tasks.task import Model, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gliofed.shared.config import DataConfig
    from gliofed.shared.data.samples import Batch
    from gliofed.shared.tasks.masks import Affine, Spacing

SMOOTH = 1.0
"""Voxels added to both parts of the soft Dice: a region that is absent then still pulls its probabilities to 0."""

ABSENT = 0.2
"""Weight of the soft Dice of a region that a patch has no voxel of. With 1, a region that many patients lack may sink
to nothing in the first rounds and never be found; without any, it is drawn in those who lack it.

Measured on phantoms at 4 mm, half of them without enhancing tumour, 12 rounds, seeds 0, 1 and 2: Dice .89 .90 .88 with
.2, .86 .85 .77 with 1, where seed 2 never finds it; without any .68 at seed 2. docs/methods.md has more.
"""

CROSS_ENTROPY = 0.3
"""Weight of the cross-entropy. With more, regions of few voxels are learnt later; without any, less well.

Measured on phantoms at 4 mm, four sites, 12 rounds, moments averaged: Dice .79 without, .81 with .3, .80 with 1; with 1
and no squares in the soft Dice .74 (two seeds, 114 test phantoms each).
"""

CHANGE = 0.5
"""Weight of the soft Dice where a series changed. Without it a model of series learns change no faster than one of
single visits: few voxels of a scan change.

Measured on phantoms at 4 mm, 55 s of CPU time, one seed, 68 test phantoms: Dice on change .71 with, .49 without, .65 of
the U-Net frame by frame; docs/models.md has more.
"""

WINDOWS = {"cpu": 2, "cuda": 4}
"""Windows a forward pass. One alone falls to a convolution several times slower a window on a CPU, and leaves most of a
GPU idle; without gradients four take less memory than a training step."""

RANGES: dict[str, Range] = {
    "dice": (0.0, 1.0),
    "jaccard": (0.0, 1.0),
    "recall": (0.0, 1.0),
    "precision": (0.0, 1.0),
    "hd95": (0.0, 20_000.0),
    "dice_change": (0.0, 1.0),
}
"""What the metrics of a patient can be; hd95 in mm, up to the diagonal of the largest volume that is read."""


class Visit(NamedTuple):
    """Masks (R, D, H, W), bool, of one visit, and where they lie."""

    predicted: Tensor
    true: Tensor
    affine: Affine


class Segmentation(Task):
    """Regions that may overlap, such as ET in TC in WT: one sigmoid a region and voxel.

    Logits and targets are (B, R, D, H, W), or (B, T, R, D, H, W) for series.
    """

    headline = "dice"

    def outputs(self, data: DataConfig) -> int:
        """Channels of the model's output."""
        return len(data.regions)

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """One minus the soft Dice of each sample, frame and region, plus a part of the binary cross-entropy.

        The soft Dice counts less where a region is absent.

        Of a series, plus a part of one minus the soft Dice of each frame in the voxels whose target differs from that
        of the frame before.

        `target` is 0 and 1, of any dtype. Each sample gets its own loss and the batch their mean, never a Dice
        over the batch: the loss of one patient must not depend on another's (differential privacy).
        `weight` (B,) multiplies each sample's loss before that mean; None is ones.
        Logits with one axis more, (B, K, ...), are K guesses of the same target, as of refinement iterations or deep
        supervision: each counts the same.
        Source: Milletari et al. 2016, arXiv:1606.04797, whose squares keep an unsure probability from growing where
        most of a region is; with cross-entropy as in nnU-Net, arXiv:1809.10486.
        """
        import torch.nn.functional as F

        logits, target = logits.float(), target.float()
        changed = target[:, 1:] != target[:, :-1] if target.dim() == 6 else None
        if logits.dim() > target.dim():
            target = target.unsqueeze(1).expand_as(logits)
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)
        probability = logits.sigmoid()
        losses = CROSS_ENTROPY * cross_entropy + _soft_dice_loss(probability, target, ABSENT)
        if changed is not None and changed.shape[1]:
            changed = changed if target.dim() == 6 else changed.unsqueeze(1)
            later, true = (part.narrow(-5, 1, changed.shape[-5]) * changed for part in (probability, target))
            losses = losses + CHANGE * _soft_dice_loss(later, true, 1)
        return (losses if weight is None else losses * weight).mean()

    def logits(self, model: Model, inputs: tuple[Tensor, ...], data: DataConfig) -> Tensor:
        """Logits of whole volumes, of which `inputs` is the image ([B, C or B, T, C], D, H, W), without gradients.

        Where images may be missing, `inputs` has `Batch.present` as well, and B is 1.
        One forward pass where the volume fits in `data.patch` (voxels); else overlapping windows of that size, halves
        shared, blended by a Gaussian. A series is cut into windows in space only.
        """
        import torch

        image, *present = inputs
        frames = image.shape[1]
        assert not present or len(image) == 1, "windows of several volumes would need each one's own"

        def told(windows: Tensor) -> Tensor:  # a window may be empty where the volume is not: it cannot tell
            return model(windows, *(there.expand(len(windows), *there.shape[1:]) for there in present))

        def folded(windows: Tensor) -> Tensor:  # MONAI knows one channel axis: frames go into it
            return told(torch.unflatten(windows, 1, (frames, -1))).flatten(1, 2)

        window = [min(side, limit) for side, limit in zip(image.shape[-3:], data.patch, strict=True)]
        with torch.no_grad():
            if window == list(image.shape[-3:]):
                return told(image)
            if image.dim() == 5:
                return _slide(told, image, window)
            return torch.unflatten(_slide(folded, image.flatten(1, 2), window), 1, (frames, -1))

    def metrics(
        self, prediction: Tensor, target: Tensor, regions: tuple[str, ...], spacing: Spacing
    ) -> dict[str, float]:
        """Dice, jaccard, recall, precision and hd95 (mm) of one patient: means over regions, and dice_et by region.

        Both masks are (..., R, D, H, W), bool or 0 and 1, on the CPU; `spacing` is a voxel's edge in mm along D, H, W.
        Leading axes (frames, or a batch of this patient's volumes) are averaged. As in BraTS, a region that is absent
        in both masks counts 1, and in one of them 0; its distance is 0 mm and ABSENT_MM. With one region there are
        only the means.
        """
        import torch

        from gliofed.shared.tasks.masks import compare

        if prediction.shape != target.shape or prediction.shape[-4] != len(regions):
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must have the same shape "
                f"(..., R, D, H, W) with R={len(regions)}: {', '.join(regions)}"
            )
        volumes = (mask.bool().reshape(-1, *mask.shape[-4:]) for mask in (prediction, target))
        rows = [compare(predicted, true, spacing) for predicted, true in zip(*volumes, strict=True)]
        metrics = {}
        for name in rows[0]:
            by_region = torch.stack([row[name] for row in rows]).mean(0)
            metrics[name] = by_region.mean().item()
            if len(regions) > 1:
                named = zip(regions, by_region.tolist(), strict=True)
                metrics |= {f"{name}_{region.lower()}": value for region, value in named}
        return metrics

    def measure(
        self, model: Model, volumes: Iterable[Batch], data: DataConfig, device: torch.device
    ) -> dict[str, float]:
        """Loss and metrics of one patient: the mean over visits, each counting the same; and `change` of the last.

        `volumes` are whole visits (1, C, D, H, W) or windows of visits (1, T, C, D, H, W), in order of time, each with
        its spacing. Each value is NaN where a logit is NaN or infinite.
        """
        visits: list[dict[str, float]] = []
        last: list[Visit] = []
        for batch in volumes:
            assert batch.spacing is not None, "a whole volume has a spacing"
            there = batch.to(device)
            logits = self.logits(model, there.inputs, data)
            each = (part.reshape(-1, *part.shape[-4:]) for part in (logits, there.target))
            loss = self.loss(*each).item()  # of visits alone, so that models of visits and of series compare
            masks = (logits > 0).cpu()  # where the sigmoid is above one half
            means = {"loss": loss} | self.metrics(masks, batch.target, data.regions, batch.spacing)
            if not logits.isfinite().all():  # of a broken model: it would pass for an empty mask, and score where
                means = dict.fromkeys(means, math.nan)  # there is no tumour
            visits += [means] * masks.shape[:-4].numel()  # a window's means count once for each of its visits
            grid = np.diag([*batch.spacing, 1.0]) if batch.affine is None else batch.affine
            predicted, true = (mask.bool().reshape(-1, *mask.shape[-4:]) for mask in (masks, batch.target))
            last = [*last, *(Visit(*pair, grid) for pair in zip(predicted, true, strict=True))][-2:]
        measured = over_patients(visits)
        found = self.change(last, data.regions)
        return measured | (dict.fromkeys(found, math.nan) if math.isnan(measured[self.headline]) else found)

    def change(self, visits: Sequence[Visit], regions: tuple[str, ...]) -> dict[str, float]:
        """dice_change, and by region, of a patient's last visit: Dice where its true mask differs from the one before.

        `visits` are the patient's last two. Mean over the regions that changed. Nothing, so that the patient is in no
        mean of it, for one visit, for visits that are not on one grid, and where no region changed.
        """
        from gliofed.shared.tasks.masks import dice_on_change, on_grid

        if len(visits) < 2:
            return {}
        first, last = visits
        # A model that reads one visit at a time has each in a box of its own.
        before = on_grid(first.true, first.affine, last.affine, last.true.shape[1:])
        if before is None:
            return {}
        values = dice_on_change(last.predicted, last.true, before).tolist()
        known = {region: value for region, value in zip(regions, values, strict=True) if not math.isnan(value)}
        if not known:
            return {}
        parts = {f"dice_change_{region.lower()}": value for region, value in known.items()} if len(regions) > 1 else {}
        return {"dice_change": fmean(known.values())} | parts

    def impossible(self, metrics: Mapping[str, float], patients: int, data: DataConfig) -> str | None:
        """Say what of one site's metrics over so many validation patients cannot be, if anything."""
        parts = [""] + [f"_{region.lower()}" for region in data.regions]
        return out_of_range(metrics, {"loss": LOSS} | {n + p: r for n, r in RANGES.items() for p in parts})


def _soft_dice_loss(probability: Tensor, target: Tensor, absent: float) -> Tensor:
    """(B,): one minus the soft Dice, times `absent` where there is no target; the mean over all but B and space."""
    overlap, volume = (probability * target).sum(dim=(-3, -2, -1)), target.sum(dim=(-3, -2, -1))
    total = probability.square().sum(dim=(-3, -2, -1)) + volume
    each = 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)
    return each.where(volume > 0, absent * each).flatten(1).mean(1)


def _slide(model: Model, image: Tensor, window: list[int]) -> Tensor:
    from monai.inferers.utils import sliding_window_inference  # takes a second or two, and not every message needs it

    logits: Tensor = sliding_window_inference(
        image, window, WINDOWS[image.device.type], model, overlap=0.5, mode="gaussian"
    )
    return logits
