"""Plant what only contrasts show into real cases, and count what the check finds: for whoever has real cases.

    python tests/planted_in_real.py FOLDER SCHEME

Prints a table of kinds, found of planted, and every miss; no case is changed. docs/data.md has what it gave.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from gliofed.client.doctor.anatomy import mask_facts, tumour_findings
from gliofed.client.doctor.contrast import FEW, Contrasts, Labels
from gliofed.client.doctor.findings import Warned
from gliofed.client.doctor.plausibility import FLUID, FOUR, implausible
from gliofed.shared.data.labels import LABELS, schemes_with
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.volume import Volume, read_volume
from gliofed.shared.site_config import CheckConfig

WRITTEN_AND_DECLARED = (
    ("brats2023", "msd"), ("brats2023", "lumiere"), ("msd", "brats2023"), ("msd", "lumiere"), ("lumiere", "brats2023"),
    ("lumiere", "msd"), ("brats2021", "brats2024"), ("hd_glio", "brats2021"),
)  # fmt: skip
Images = dict[str, Volume]
Regions = dict[str, frozenset[int]]


def planted(images: Images, labels: np.ndarray, others: list[np.ndarray], scheme: str) -> Iterator[tuple]:
    """Kind, the code that it must be given, images, mask (X, Y, Z) and declared scheme."""
    yield "clean", None, images, labels, scheme
    enhancing = np.isin(labels, sorted(LABELS[scheme]["et"])).sum() >= FEW
    for one, other in combinations(FOUR, 2):
        if {one, other} == {"t1", "t1ce"} and not enhancing:
            continue  # nothing tells the two apart
        swapped = {**images, one: images[other], other: images[one]}
        yield f"{one} and {other} swapped", "modalities_swapped", swapped, labels, scheme
    yield "mask mirrored", "mask_misplaced", images, labels[::-1], scheme
    yield "mask front to back", "mask_misplaced", images, labels[:, ::-1], scheme
    for other in others:
        if other.shape == labels.shape:
            yield "mask of another patient", "mask_misplaced", images, other, scheme
    yield "binary mask", "binary_mask", images, (labels != 0).astype(np.uint8), scheme
    for written, declared in WRITTEN_AND_DECLARED:
        changed = in_scheme(labels, LABELS[scheme], LABELS[written])
        if declared == "brats2024" and not enhancing:
            continue  # the two differ in enhancing tumour alone
        if declared in schemes_with(np.unique(changed[changed > 0]).tolist()):
            yield f"{written} declared as {declared}", "label_scheme", images, changed, declared


def in_scheme(labels: np.ndarray, source: Regions, target: Regions) -> np.ndarray:
    """The same regions in the labels of another scheme, from the outside in."""
    changed = np.zeros_like(labels)
    for name in ("wt", "tc", "et"):
        if name in source and name in target:
            inner = frozenset[int]().union(*(region for region in target.values() if region < target[name]))
            changed[np.isin(labels, sorted(source[name]))] = min(target[name] - inner)
    return changed


def look(images: Images, labels: np.ndarray, scheme: str) -> tuple[list[Warned], Contrasts]:
    """What the check finds in them, as it does while it reads files."""
    first = next(iter(images.values()))
    mask = Volume(labels.astype(np.float32), first.spacing, first.affine)
    contrasts = Contrasts(scheme, labels.shape, mask.spacing, Labels.of(mask))
    for name, image in images.items():
        contrasts.add(name, image.array)
    brain = np.logical_or.reduce([image.array != 0 for image in images.values()])
    return tumour_findings(mask_facts(mask, scheme), brain, CheckConfig(), scheme) + implausible(contrasts), contrasts


def shown(seen: Contrasts) -> str:
    """The measures, for docs/data.md."""
    ranks = {name: {label: round(value, 2) for label, value in each.items()} for name, each in seen.ranks.items()}
    fluid = seen.brightest("t2", "flair", FLUID), seen.brightest("flair", "t2", FLUID)
    surface = seen.labels and {label: round(value, 2) for label, value in seen.labels.surface.items()}
    alike = seen.correlation(FOUR)
    return (
        f"lesion {seen.lesion} sides {seen.sides} ranks {ranks} fluid {fluid} surface {surface} "
        f"alike {None if alike is None else alike.round(2).tolist()}"
    )


def main(root: str, scheme: str) -> None:
    """Print what is found in each case of the folder that has all four images and a mask."""
    cases = [case for case in find_cases(Path(root), scheme) if case.mask and case.images.keys() >= set(FOUR)]
    masks = {case.patient: np.rint(read_volume(case.mask).array).astype(np.uint8) for case in cases if case.mask}
    found: dict[str, list[bool]] = defaultdict(list)
    for case in cases:
        images = {name: read_volume(case.images[name]) for name in FOUR}
        others = [mask for patient, mask in masks.items() if patient != case.patient]
        for kind, code, *rest in planted(images, masks[case.patient], others, scheme):
            warned, seen = look(*rest)
            told = {each[0]: each[2] for each in warned}
            found[kind].append(code in told if code else not told)
            if not found[kind][-1]:
                print(f"MISSED {case.patient} {kind}: {told} {shown(seen)}", flush=True)
            elif kind == "clean" or code == "label_scheme":
                print(f"{case.patient} {kind}: {told} {shown(seen)}", flush=True)
    for kind, each in found.items():
        print(f"{kind:40} {sum(each)} of {len(each)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
