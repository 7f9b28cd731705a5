from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1.0
"""Voxels added to both parts of the soft Dice: a region that is absent then still pulls its probabilities to 0."""

WINDOWS = 2
"""Windows a forward pass. One alone falls to a convolution several times slower a window on a CPU."""


class Segmentation:
    """Regions that may overlap, such as ET in TC in WT: one sigmoid a region and voxel.

    Logits and targets are (B, R, D, H, W), or (B, T, R, D, H, W) for series.
    """

    @staticmethod
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy plus one minus the soft Dice of each sample, frame and region.

        `target` is 0 and 1, of any dtype. Each sample gets its own loss and the batch their mean, never a Dice
        over the batch: the loss of one patient must not depend on another's (differential privacy).
        Source: Milletari et al. 2016, arXiv:1606.04797; with cross-entropy as in nnU-Net, arXiv:1809.10486.
        """
        logits, target = logits.float(), target.float()
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
        probability = logits.sigmoid()
        overlap = (probability * target).sum(dim=(-3, -2, -1))
        total = probability.sum(dim=(-3, -2, -1)) + target.sum(dim=(-3, -2, -1))
        return cross_entropy + (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()

    @staticmethod
    def predict(logits: Tensor) -> Tensor:
        """Masks, bool: where the sigmoid is above one half."""
        return logits > 0

    @staticmethod
    @torch.no_grad()
    def infer(model: Callable[[Tensor], Tensor], image: Tensor, patch: tuple[int, int, int]) -> Tensor:
        """Logits of whole volumes, image ([B, C or B, T, C], D, H, W), without gradients.

        One forward pass where the volume fits in `patch` (voxels); else overlapping windows of that size, halves
        shared, blended by a Gaussian. A series is cut into windows in space only.
        """
        size = image.shape[-3:]
        if all(side <= limit for side, limit in zip(size, patch, strict=True)):
            return model(image)
        window = [min(side, limit) for side, limit in zip(size, patch, strict=True)]
        if image.dim() == 5:
            return _slide(model, image, window)
        frames = image.shape[1]

        def folded(windows: Tensor) -> Tensor:  # MONAI knows one channel axis: frames go into it
            return model(torch.unflatten(windows, 1, (frames, -1))).flatten(1, 2)

        return torch.unflatten(_slide(folded, image.flatten(1, 2), window), 1, (frames, -1))

    @staticmethod
    def metrics(prediction: Tensor, target: Tensor, regions: tuple[str, ...]) -> dict[str, float]:
        """Dice of one patient by region, and their mean, "dice"; both masks (..., R, D, H, W), bool or 0 and 1.

        Leading axes (frames, or a batch of this patient's volumes) are averaged. As in BraTS, a region that is absent
        in both masks counts 1, and in one of them 0. With one region there is only "dice".
        """
        if prediction.shape != target.shape or prediction.shape[-4] != len(regions):
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must have the same shape "
                f"(..., R, D, H, W) with R={len(regions)}: {', '.join(regions)}"
            )
        predicted, true = prediction.bool(), target.bool()
        overlap = (predicted & true).sum(dim=(-3, -2, -1))
        total = predicted.sum(dim=(-3, -2, -1)) + true.sum(dim=(-3, -2, -1))
        dice = torch.where(total == 0, 1.0, 2 * overlap.double() / total.clamp(min=1)).reshape(-1, len(regions)).mean(0)
        by_region = {f"dice_{region.lower()}": value for region, value in zip(regions, dice.tolist(), strict=True)}
        return {"dice": dice.mean().item()} | (by_region if len(regions) > 1 else {})


def _slide(model: Callable[[Tensor], Tensor], image: Tensor, window: list[int]) -> Tensor:
    from monai.inferers.utils import sliding_window_inference  # takes a second or two, and not every message needs it

    logits: Tensor = sliding_window_inference(image, window, WINDOWS, model, overlap=0.5, mode="gaussian")
    return logits
