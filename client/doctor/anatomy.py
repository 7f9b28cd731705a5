"""What is odd about a brain or a tumour, though it may be right: warnings, for somebody to look at."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from client.doctor.findings import Grid, ImageFacts
from client.doctor.pictures import Marks, picture
from shared.data.labels import LABELS, regions_of
from shared.data.volume import Floats, Volume
from shared.site_config import CheckConfig

ZEROS = 0.1
"""Smallest share of zeros in an image of which everything but the brain was taken away."""
HEAD = 2400.0
"""cm3 that are more than a brain; the largest brains with their fluid have about 2000."""
ANISOTROPY = 2.0
"""Slices so many times as thick as the shortest edge are slices, and not large voxels."""
OUTSIDE = 0.05
"""Share of the mask that may lie outside the brain: borders are drawn by hand."""
SWAPPED = 1.15
"""So many times brighter must enhancing tumour be, against the brain, in T1 than in T1ce."""
FEW = 3
"""Voxels of enhancing tumour that are too few to compare."""

Warned = tuple[str, str, str, bytes]
"""Code, modality or mask, what is odd, and a picture of its own or none."""


@dataclass(frozen=True)
class MaskFacts:
    """Where the tumour is."""

    any: Marks
    """(X, Y, Z): voxels with a label."""
    enhancing: Marks | None
    """(X, Y, Z); None in a scheme without it."""
    tumour: float | None
    """Whole tumour, cm3; None in a scheme without it."""
    volume: Volume
    """The mask itself."""

    def enhancement(self, image: Floats) -> float | None:
        """Median of an image in enhancing tumour, as a share of the brain's; None where that says nothing."""
        if self.enhancing is None or self.enhancing.sum() < FEW:
            return None
        inside = image != 0
        if inside.mean() > 1 - ZEROS or not (inside & ~self.any).any():  # with air around it, this is no brain's median
            return None
        brain = float(np.median(image[inside & ~self.any]))
        return float(np.median(image[self.enhancing])) / brain if brain > 0 else None


def mask_facts(volume: Volume, scheme: str) -> MaskFacts:
    """Turn a mask with right values into what the warnings need."""
    names = [name for name in ("et", "wt") if name in LABELS[scheme]]
    regions = dict(zip(names, regions_of(volume.array, scheme, names).astype(bool), strict=True)) if names else {}
    whole = regions.get("wt")
    return MaskFacts(
        any=np.rint(volume.array) != 0,
        enhancing=regions.get("et"),
        tumour=None if whole is None else float(whole.sum() * np.prod(volume.spacing) / 1000),
        volume=volume,
    )


def image_facts(volume: Volume, digest: str) -> ImageFacts:
    """Statistics of the voxels that are not zero; the image has some."""
    inside = volume.array[volume.array != 0]
    with np.errstate(over="ignore", invalid="ignore"):  # between two voxels of 3e38 and -3e38: JSON knows no infinity
        low, median, high = (float(value) for value in np.nan_to_num(np.percentile(inside, (5, 50, 95))))
    cubic_cm = float(np.prod(volume.spacing) / 1000)
    return ImageFacts(digest, median, high - low, inside.size * cubic_cm, 1 - inside.size / volume.array.size)


def brain_findings(
    images: Mapping[str, ImageFacts], grids: Mapping[str, Grid], rules: CheckConfig, scheme: str
) -> list[Warned]:
    """not_skull_stripped and thick_slices; once a case, at the first image. Mock volumes are no heads."""
    found: list[Warned] = []
    whole = [name for name, facts in images.items() if facts.zeros < ZEROS or facts.brain > HEAD]
    if whole and "wt" in LABELS.get(scheme, {}):  # grading needs no scheme
        facts, more = images[whole[0]], f" (also {', '.join(whole[1:])})" if whole[1:] else ""
        what = (
            f"{facts.zeros:.0%} of the voxels are zero and {facts.brain:.0f} cm3 are not, so this is no brain alone"
            f"{more}; strip skull and scalp, and set what is outside to 0"
        )
        found.append(("not_skull_stripped", whole[0], what, b""))
    for name, grid in grids.items():
        thick, thin = max(grid.spacing), min(grid.spacing)
        if name in images and thick > rules.thick_slice and thick >= ANISOTROPY * thin:
            what = (
                f"slices of {thick:.3g} mm, above check.thick_slice={rules.thick_slice:g}; small tumours may be missed"
            )
            found.append(("thick_slices", name, what, b""))
            break
    return found


def tumour_findings(
    mask: MaskFacts, brain: Marks | None, enhancement: Mapping[str, float], rules: CheckConfig
) -> list[Warned]:
    """empty_mask, tiny_tumour, huge_tumour, mask_outside_brain and modalities_swapped.

    `brain` marks the voxels (X, Y, Z) that are not zero in any image.
    """
    marked = int(mask.any.sum())
    if not marked:
        return [("empty_mask", "mask", "no voxel is marked; is it the mask of this visit?", b"")]
    found: list[Warned] = []
    if mask.tumour is not None and mask.tumour < rules.tiny_tumour:
        what = f"{mask.tumour:.3g} cm3 of tumour, below check.tiny_tumour={rules.tiny_tumour:g}; look for stray voxels"
        found.append(("tiny_tumour", "mask", what, b""))
    if mask.tumour is not None and mask.tumour > rules.huge_tumour:
        what = f"{mask.tumour:.4g} cm3 of tumour, above check.huge_tumour={rules.huge_tumour:g}; is it one tumour?"
        found.append(("huge_tumour", "mask", what, b""))
    if brain is not None and (outside := int((mask.any & ~brain).sum())) > OUTSIDE * marked:
        head = Volume(brain.astype(np.float32), mask.volume.spacing, mask.volume.affine)
        what = f"{outside} of {marked} marked voxels lie where every image is zero; is it the mask of this visit?"
        found.append(("mask_outside_brain", "mask", what, picture(head, mask.any)))
    if {"t1", "t1ce"} <= enhancement.keys() and enhancement["t1"] > SWAPPED * enhancement["t1ce"]:
        what = (
            f"enhancing tumour is {enhancement['t1']:.2f} times as bright as brain in t1 and "
            f"{enhancement['t1ce']:.2f} times in t1ce; swap the two files if T1 shows the contrast agent"
        )
        found.append(("modalities_swapped", "t1", what, b""))
    return found
