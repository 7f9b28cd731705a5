"""What inversion found beside the scan: how near it comes, and the picture."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gliofed.server.report.plots.style import new_figure, save_figure


def figures(found: Tensor, true: Tensor) -> dict[str, float]:
    """PSNR (dB, of the range of `true`), SSIM (Wang et al. 2004, windows of 7 voxels) and correlation of two images.

    Brightness and contrast of `found` are fitted first: a first layer with a norm hides both.
    """
    from monai.metrics.regression import compute_ssim_and_cs  # MONAI takes seconds to import

    fitted, span = _fitted(found, true), true.max() - true.min()
    windows = [min(7, side) for side in true.shape[-3:]]
    ssim, _ = compute_ssim_and_cs(*map(_volumes, (fitted, true)), 3, windows, [1.5] * 3, float(span), "uniform")
    both = torch.stack([found.flatten(), true.flatten()])
    return {
        "psnr": (10 * (span**2 / F.mse_loss(fitted, true)).log10()).item(),
        "ssim": ssim.mean().item(),
        "correlation": both.corrcoef().nan_to_num()[0, 1].item(),
    }


def draw_found(
    runs: Sequence[tuple[str, Tensor, dict[str, Tensor], dict[str, dict[str, float]]]], path: Path, note: str
) -> None:
    """A row a run: the true slice, what was found in each case, and the mean of other patients."""
    heads = {"gradient": "without privacy, one gradient", "update": "without privacy, an update"}
    heads |= {"private": "with privacy, one gradient", "other patients": "mean of other patients"}
    figure = new_figure("What a server can see of one patient", note, width=11.0, height=1.0 + 2.6 * len(runs))
    axes = figure.subplots(len(runs), 1 + len(heads), squeeze=False)
    for row, (label, true, found, of_run) in zip(axes, runs, strict=True):
        low, high = true.min().item(), true.max().item()
        for place, name in zip(row, ("scan", *heads), strict=True):
            place.set(xticks=[], yticks=[])
            place.set_title(heads.get(name, f"scan ({label})"), fontsize=9)
            if name != "scan" and name not in found:
                place.set_axis_off()
                place.set_title("")
                continue
            volume = _volumes(true if name == "scan" else _fitted(found[name], true))[0, 0]
            place.imshow(volume[..., volume.shape[-1] // 2].T.numpy(), cmap="gray", vmin=low, vmax=high, origin="lower")
            if name in of_run:
                values = of_run[name]
                place.set_xlabel(f"PSNR {values['psnr']:.1f} dB, correlation {values['correlation']:.2f}", fontsize=8)
    save_figure(figure, path)


def _fitted(found: Tensor, true: Tensor) -> Tensor:
    """`found`, scaled and shifted to come nearest to `true`; never turned into its negative."""
    centred = found - found.mean()
    scale = (centred * (true - true.mean())).sum() / (centred**2).sum().clamp(min=1e-12)
    return true.mean() + scale.clamp(min=0) * centred


def _volumes(image: Tensor) -> Tensor:
    """Everything before D, H, W as channels of one sample."""
    return image.reshape(1, -1, *image.shape[-3:])
