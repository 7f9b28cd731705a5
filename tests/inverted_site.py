"""Two sites of which one has inverted contrasts, and a U-Net whose norms are BatchNorm."""

from pathlib import Path
from statistics import fmean
from typing import Any

import nibabel as nib
import numpy as np
from plain_federation import rounds_of
from small_run import PLAIN, as_given
from torch import nn

from gliofed.shared.models.unet import UNet3D
from gliofed.simulation.simulate import simulate

SIZE = (
    "data.size=[16,16,16]",
    "data.patch=[16,16,16]",
    "data.radius_min=2",
    "data.radius_max=5",
    "data.patients=8",
    "data.validation=0.4",
)
DATA = (*SIZE, "data.patients=8", "data.validation=0.4")
SETTINGS = ("model=unet", *DATA, "sites=2", "rounds=10", "train.steps=8", "train.lr=0.01", "round.evaluate_every=10")
SETTINGS += PLAIN


class BatchUNet(UNet3D):
    """The U-Net with BatchNorm in the place of each norm."""

    def __init__(self, *sizes: object, **options: object) -> None:
        super().__init__(*sizes, **options)  # type: ignore[arg-type]
        for name, module in list(self.named_modules()):
            if isinstance(module, nn.GroupNorm):
                parent = self.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], nn.BatchNorm3d(module.num_channels))


def invert(scans: Path) -> None:
    """What is bright becomes dark, in every image that is no mask."""
    for path in scans.rglob("*.nii.gz"):
        if not path.name.endswith("seg.nii.gz"):
            image = nib.load(path)
            values = np.asarray(image.dataobj)
            nib.save(nib.Nifti1Image(values.max() + values.min() - values, image.affine, image.header), path)


def dice(data: Path, out: Path, *words: str) -> list[float]:
    """Dice of each site's own patients after the last round; the second site's contrasts are inverted."""
    if not data.exists():
        simulate(as_given(*SETTINGS, *words, "rounds=1", "train.steps=1", f"data.root={data}", f"out={out}-data"))
        invert(data / "site-2")
    simulate(as_given(*SETTINGS, *words, f"data.root={data}", f"out={out}"))
    return dice_of(rounds_of(out)[-1])


def dice_of(event: dict[str, Any]) -> list[float]:
    return [line["evaluate"]["dice"] for line in event["sites"].values()]


def worst(data: Path, out: Path, *words: str) -> float:
    """Dice of the worst site, as a mean over the last three rounds: from round to round it jumps."""
    dice(data, out, *words, "round.evaluate_every=1")
    return fmean(min(dice_of(event)) for event in rounds_of(out)[-3:])
