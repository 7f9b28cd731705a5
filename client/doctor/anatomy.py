"""What is odd about a brain or a tumour, though it may be right: warnings, for somebody to look at."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gliofed.client.doctor.findings import MASK, Grid, ImageFacts, Warned
from gliofed.client.doctor.pictures import Marks, picture
from gliofed.shared.data.labels import LABELS
from gliofed.shared.data.volume import Volume
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.wording import quantity

ZEROS = 0.1
"""Smallest share of zeros in an image of which everything but the brain was taken away."""
HEAD = 2400.0
"""cm3 that are more than a brain; the largest brains with their fluid have about 2000."""
ANISOTROPY = 2.0
"""Slices so many times as thick as the shortest edge are slices, and not large voxels."""
OUTSIDE = 0.05
"""Share of the mask that may lie outside the brain: borders are drawn by hand."""


@dataclass(frozen=True)
class MaskFacts:
    """Where the tumour is."""

    any: Marks
    """(X, Y, Z): voxels with a label."""
    labels: frozenset[int]
    """Those that it has."""
    tumour: float | None
    """Whole tumour, cm3; None in a scheme without it."""
    volume: Volume
    """The mask itself."""


def mask_facts(volume: Volume, scheme: str) -> MaskFacts:
    """Turn a mask with right values into what the warnings need."""
    labels = np.rint(volume.array).astype(np.uint8)
    counts = {label: int(count) for label, count in enumerate(np.bincount(labels.ravel())) if label and count}
    cubic_cm, whole = float(np.prod(volume.spacing) / 1000), LABELS[scheme].get("wt")
    tumour = None if whole is None else sum(counts.get(label, 0) for label in whole) * cubic_cm
    return MaskFacts(labels != 0, frozenset(counts), tumour, volume)


def image_facts(volume: Volume, digest: str) -> ImageFacts:
    """Statistics of the voxels that are not zero; the image has some."""
    inside = volume.array[volume.array != 0]
    with np.errstate(over="ignore", invalid="ignore"):  # between two voxels of 3e38 and -3e38: JSON knows no infinity
        low, high = (float(value) for value in np.nan_to_num(np.percentile(inside, (5, 95))))
    cubic_cm = float(np.prod(volume.spacing) / 1000)
    return ImageFacts(digest, high - low, inside.size * cubic_cm, 1 - inside.size / volume.array.size)


def brain_findings(
    images: Mapping[str, ImageFacts], grids: Mapping[str, Grid], rules: CheckConfig, scheme: str
) -> list[Warned]:
    """not_skull_stripped and thick_slices; once a case, at the first image. Mock volumes are no heads."""
    found: list[Warned] = []
    whole = [name for name, facts in images.items() if facts.zeros < ZEROS or facts.brain > HEAD]
    if whole and "wt" in LABELS.get(scheme, {}):  # a label needs no scheme
        facts, more = images[whole[0]], f" (also {', '.join(whole[1:])})" if whole[1:] else ""
        what = (
            f"{facts.zeros:.0%} of the voxels are zero and {facts.brain:.0f} cm3 are not, so this is not only brain"
            f"{more}; strip skull and scalp, and set what is outside to 0"
        )
        found.append(("not_skull_stripped", (whole[0],), what, b""))
    for name, grid in grids.items():
        thick, thin = max(grid.spacing), min(grid.spacing)
        if name in images and thick > rules.thick_slice and thick >= ANISOTROPY * thin:
            limit = f"check.thick_slice={rules.thick_slice:g}"
            what = f"slices of {thick:.3g} mm, above {limit}; small tumours may be missed"
            found.append(("thick_slices", (name,), what, b""))
            break
    return found


def tumour_findings(mask: MaskFacts, brain: Marks | None, rules: CheckConfig, scheme: str) -> list[Warned]:
    """empty_mask, binary_mask, tiny_tumour, huge_tumour and mask_outside_brain.

    `brain` marks the voxels (X, Y, Z) that are not zero in any image.
    """
    marked = int(mask.any.sum())
    if not marked:
        return [("empty_mask", (MASK,), "no voxel is marked; is it the mask of this visit?", b"")]
    found: list[Warned] = []
    regions = LABELS[scheme]
    if mask.labels == {1} and "tc" in regions:
        inner = next(name for name, labels in regions.items() if 1 in labels)
        what = (
            f"all that is marked has label 1, which scheme {scheme} reads as {inner.upper()}; if it is a mask of the "
            "whole tumour, get one with labels of the scheme"
        )
        found.append(("binary_mask", (MASK,), what, b""))
    if mask.tumour is not None and mask.tumour < rules.tiny_tumour:
        what = f"{mask.tumour:.3g} cm3 of tumour, below check.tiny_tumour={rules.tiny_tumour:g}; look for stray voxels"
        found.append(("tiny_tumour", (MASK,), what, b""))
    if mask.tumour is not None and mask.tumour > rules.huge_tumour:
        what = f"{mask.tumour:.4g} cm3 of tumour, above check.huge_tumour={rules.huge_tumour:g}; is it one tumour?"
        found.append(("huge_tumour", (MASK,), what, b""))
    if brain is not None and (outside := int((mask.any & ~brain).sum())) > OUTSIDE * marked:
        head = Volume(brain.astype(np.float32), mask.volume.spacing, mask.volume.affine)
        lie = f"of {quantity(marked, 'marked voxel')} {quantity(outside, 'lies', 'lie')} where every image is zero"
        what = f"{lie}; is it the mask of this visit?"
        found.append(("mask_outside_brain", (MASK,), what, picture(head, mask.any)))
    return found
