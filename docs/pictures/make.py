"""Draws the pictures of README and docs: python docs/pictures/make.py (needs matplotlib)."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from gliofed.simulation.phantom import PhantomConfig, is_high_grade, make_case

HERE = Path(__file__).parent
COLOURS = ListedColormap([(0, 0, 0, 0), "#d7263d", "#3bceac", "#ffd23f"])
"""Nothing, necrosis, edema, enhancing tumour."""


def phantoms() -> None:
    """One phantom of each of three sites, whose scanners differ."""
    config = PhantomConfig(patients=4)
    figure, axes = plt.subplots(3, 5, figsize=(11, 7.6), facecolor="black")
    for row, (site, patient) in zip(axes, ((0, 2), (1, 1), (2, 2)), strict=True):
        images, mask = make_case(config, site, patient)
        slab = int((mask > 0).sum((0, 1)).argmax())
        grade = "HGG" if is_high_grade(config, site, patient) else "LGG"
        for ax, name in zip(row, ("t1", "t1ce", "t2", "flair", "flair"), strict=True):
            image = images[name][40:200, 25:215, slab].T
            ax.imshow(image, cmap="gray", vmax=np.percentile(images[name][images[name] > 0], 99.7))
            ax.set_title(name, color="white", fontsize=9)
            ax.axis("off")
        row[4].imshow(mask[40:200, 25:215, slab].T, cmap=COLOURS, vmin=0, vmax=3, alpha=0.65, interpolation="nearest")
        row[4].set_title("mask", color="white", fontsize=9)
        row[0].text(4, 14, f"site {site + 1}, {grade}", color="white", fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(HERE / "phantoms.png", dpi=90, facecolor="black")


if __name__ == "__main__":
    phantoms()
