"""What becomes of a glioma from visit to visit, where each patient has a course of their own."""

from dataclasses import replace

import numpy as np

from gliofed.simulation.brain import Array, Pose, Template
from gliofed.simulation.tumour import Tumour

RESPONSE = 0.35
"""Chance of an interval between visits to show a response; in the others the tumour grows."""
GROWS = (1.06, 1.35)
"""By how much the core's radius grows in an interval."""
SHRINKS = (0.68, 0.92)
"""By how much it shrinks in a response."""
SWELLING = 0.25
"""Deviation of the logarithm of the edema's reach at a visit: steroids and treatment move it without the core."""
DRIFT = 3.0
"""Farthest that the core moves in an interval, mm: it grows on one side and responds on another."""
NEW = 0.7
"""New lesions expected in an interval."""
NEW_RADIUS = (4.0, 8.0)
"""Of a new lesion's core, mm: as large as a harmless hyperintensity, from which one visit may not tell it."""
NEW_GROWS = (0.9, 1.4)
"""By how much a new lesion's radius changes in each later interval."""
NEW_ENHANCING = 0.5
"""Share of new lesions that enhance as the first tumour does; the others show in T2 and FLAIR only."""
SCAR = 0.35
"""How bright tissue stays that was tumour at an earlier visit, where edema is 1. It is no part of the mask."""


def own_course(
    rng: np.random.Generator, first: Tumour, pose: Pose, template: Template, visits: int
) -> list[tuple[Tumour, ...]]:
    """The lesions of each visit: the tumour, which at its largest is `first`, and those that came since."""
    steps = [rng.uniform(*(SHRINKS if rng.random() < RESPONSE else GROWS)) for _ in range(visits - 1)]
    sizes = np.cumprod([1.0, *steps])
    sizes = np.maximum(sizes / sizes.max(), 0.4)
    swelling = np.exp(rng.normal(0, SWELLING, visits)).clip(0.6, 1.6)
    shifts = np.cumsum([np.zeros(3), *(_direction(rng) * rng.uniform(0, DRIFT) for _ in steps)], axis=0)
    courses = []
    new: list[Tumour] = []
    for visit, (size, swell, shift) in enumerate(zip(sizes, swelling, shifts, strict=True)):
        new = [lesion.grown(rng.uniform(*NEW_GROWS)) for lesion in new]
        for _ in range(rng.poisson(NEW) if visit else 0):
            place = pose.to_field(rng.choice(template.glioma))
            lesion = _new_lesion(rng, first, place)
            if np.linalg.norm(place - first.centre) > first.radius + first.edema + lesion.reach:
                new.append(lesion)
        grown = first.grown(size)
        centre = np.asarray(first.centre + shift, dtype=np.float32)
        courses.append((replace(grown, edema=grown.edema * swell, centre=centre), *new))
    return courses


def _direction(rng: np.random.Generator) -> Array:
    vector = rng.standard_normal(3)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def _new_lesion(rng: np.random.Generator, first: Tumour, centre: Array) -> Tumour:
    """A small solid lesion of the first tumour's grade at `centre`, (3,) mm."""
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    stretch = np.exp(rng.normal(0, 0.2, 3))
    return replace(
        first,
        centre=centre,
        axes=turn @ np.diag(stretch / stretch.prod() ** (1 / 3)) @ turn.T,
        radius=rng.uniform(*NEW_RADIUS),
        edema=rng.uniform(1, 4),
        necrosis=0.0,
        enhancing=first.enhancing if rng.random() < NEW_ENHANCING else 4.0,
        seed=int(rng.integers(2**32)),
    )
