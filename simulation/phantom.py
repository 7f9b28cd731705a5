"""BraTS phantoms on real anatomy: patients with a glioma that no hospital ever saw, in BraTS' own layouts.

Heads are the MNI template, posed and warped (brain.py); gliomas are drawn (tumour.py), in a series take their course
(course.py) and are imaged (scanner.py). Whatever is measured on them is synthetic.
"""

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.shared.files import new_folder, write_bytes
from gliofed.shared.parse import Strict
from gliofed.simulation.brain import Array, Grid, draw_pose, load_template, sample_head
from gliofed.simulation.course import SCAR, own_course
from gliofed.simulation.scanner import CONTRASTS, SCANNERS, Tissue, acquire, hyperintensities, render, spoil, vessels
from gliofed.simulation.tumour import ENHANCING, Tumour, draw_tumour

GROWTH = (0.60, 0.78, 0.66, 0.82, 1.00)
"""Radius of the tumour over a series, with a response to treatment in the middle; of course=same."""
ARTEFACTS = 0.08
"""Share of the scans (a modality at a visit) in which the patient moved; of course=own."""
HEAD = np.array([86, 106, 90])
"""Half of a block that holds every head, mm."""
FILES_2020 = {"flair": "flair", "t1": "t1", "t1ce": "t1ce", "t2": "t2"}
FILES_2023 = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
MAPPING = "name_mapping.csv"
COLUMNS = ("BraTS_2017", "BraTS_2018", "TCGA_TCIA", "BraTS_2019", "BraTS_2020")
"""BraTS 2020's names of a patient over the years; a phantom has the last only."""


@dataclass(frozen=True, kw_only=True)
class PhantomConfig(Strict):
    """Phantoms of a study; the same values give the same bytes."""

    patients: int
    """Of each site."""
    visits: int = 1
    """1: one scan a patient, in the layout of BraTS 2020; more: a series, under the names of BraTS 2023."""
    resolution: float = 1.0
    """Edge of a voxel, mm; 1.0 gives BraTS' 240 x 240 x 155."""
    seed: int = 0
    """Of everything that is drawn, with the site and the patient's number."""
    high_grade: float = 0.6
    """Share of HGG among the patients of a site."""
    course: Literal["same", "own"] = "same"
    """Of a series. own: each patient has growth, responses, new lesions and artefacts of their own, at the rates of
    `gliofed.simulation.course` and ARTEFACTS; same: one course of growth for all."""
    lost: float = 0.0
    """Share of visits that lack one of their four modalities."""

    def __post_init__(self) -> None:
        if not 1 <= self.patients <= 999:
            raise ValueError(f"data.patients={self.patients}: must be 1 to 999, the numbers that a site's names hold")
        if not 1 <= self.visits <= 999:
            raise ValueError(f"data.visits={self.visits}: must be 1 to 999; 5 shows growth, response and growth")
        if not 0.5 <= self.resolution <= 8:
            raise ValueError(f"data.resolution={self.resolution}: must be 0.5 to 8 mm; 1, 2 and 4 are usual")
        if not 0 <= self.high_grade <= 1:
            raise ValueError(f"data.high_grade={self.high_grade}: must be a share, 0 to 1")
        if not 0 <= self.lost <= 1:
            raise ValueError(f"data.lost={self.lost}: must be a share of visits, 0 to 1")


def write_phantoms(config: PhantomConfig, root: Path, site: int, report: Callable[[], None] = lambda: None) -> None:
    """Write the patients of one site as NIfTI under `root`; `report` is called after each scan.

    Scans that are there are kept, so that an interrupted run goes on; a folder is for one site and one
    config. The grades, name_mapping.csv, come last: once they are there, all is.
    """
    rows = []
    for patient in range(1, config.patients + 1):
        for visit in range(config.visits):
            folder = root / case_name(config, site, patient, visit)
            if not folder.exists():
                _write_case(config, folder, site, patient, visit)
            report()
        rows.append(("HGG" if is_high_grade(config, site, patient) else "LGG", case_name(config, site, patient)))
    _write_mapping(root / MAPPING, rows)


def case_name(config: PhantomConfig, site: int, patient: int, visit: int | None = None) -> str:
    """The name of a patient, or of one scan; patients count from 1, visits from 0."""
    number = 1000 * site + patient
    if config.visits == 1:
        return f"BraTS20_Training_{number:03d}"
    return f"BraTS-GLI-{number:05d}" + ("" if visit is None else f"-{visit:03d}")


def scanner_of(site: int) -> str:
    """The name of the scanner that a site has, which its files do not tell."""
    return f"scanner {site % len(SCANNERS) + 1}"


def is_high_grade(config: PhantomConfig, site: int, patient: int) -> bool:
    """Grades take turns, so that a small site has both; where the turn starts is the site's."""
    start = np.random.default_rng([config.seed, site]).random()
    return int(patient * config.high_grade + start) > int((patient - 1) * config.high_grade + start)


def growth(visits: int) -> NDArray[np.float64]:
    """The tumour's radius at each visit, (visits,), as a share of the last."""
    return np.interp(np.linspace(len(GROWTH) - 1, 0, visits)[::-1], np.arange(len(GROWTH)), GROWTH)


def make_case(
    config: PhantomConfig, site: int, patient: int, visit: int = 0
) -> tuple[dict[str, NDArray[np.int16]], NDArray[np.uint8]]:
    """The images by modality and the mask of one scan, (X, Y, Z) in BraTS' LPS order; the mask has 1, 2 and 3."""
    rng = np.random.default_rng([config.seed, site, patient])
    of_head, of_tumour, *of_scan = rng.spawn(2 + config.visits)
    whole, template = Grid.of(config.resolution), load_template(config.resolution)
    box = whole.around(np.array([120, 120, 77.5]), HEAD)
    grid, pose = whole.crop(box), draw_pose(of_head)
    start = pose.to_field(of_tumour.choice(template.glioma))
    first = draw_tumour(of_tumour, is_high_grade(config, site, patient), start)
    of_course, *of_artefacts = np.random.default_rng([config.seed, site, patient, 1]).spawn(1 + config.visits)
    own = config.course == "own" and config.visits > 1
    if own:
        courses = own_course(of_course, first, pose, template, config.visits)
    else:
        courses = [(first.grown(size),) for size in growth(config.visits)]
    lesions = courses[visit]
    wm, gm, csf, texture = sample_head(of_head, pose, grid, template, lesions[0].displacement(grid))
    brain = wm + gm + csf > 0.5
    labels, lesion = _labelled(lesions, grid, wm, csf, brain)
    bright = hyperintensities(of_head, grid, pose, template, lesions[0], wm)
    for earlier in courses[:visit] if own else ():
        healed = (_labelled(earlier, grid, wm, csf, brain)[0] > 0) & (labels == 0)
        scar = ndimage.gaussian_filter(healed.astype(np.float32), 1.2 / config.resolution)
        bright = np.maximum(bright, np.float32(SCAR) * scar)
    blood = vessels(of_head, grid, gm, csf)
    tissue = Tissue(grid, wm, gm, csf, texture, bright, blood, brain, labels, lesion)

    scanner, images = SCANNERS[site % len(SCANNERS)], {}
    for modality in CONTRASTS:
        signal = render(of_scan[visit], tissue, lesions, modality, config.resolution)
        seen = acquire(of_scan[visit], signal, scanner, grid, isotropic=modality == "t1ce")
        if own and of_artefacts[visit].random() < ARTEFACTS:
            seen = spoil(of_artefacts[visit], seen)
        images[modality] = np.zeros(whole.shape, dtype=np.int16)
        images[modality][box] = np.where(brain, np.clip(np.rint(seen), 1, 32767), 0)
    mask = np.zeros(whole.shape, dtype=np.uint8)
    mask[box] = labels
    return images, mask


def _labelled(
    lesions: Sequence[Tumour], grid: Grid, wm: Array, csf: Array, brain: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The compartment of each voxel and the number of the lesion that it is of, from 1, (X, Y, Z); 0: none."""
    labels, lesion = np.zeros(grid.shape, dtype=np.uint8), np.zeros(grid.shape, dtype=np.uint8)
    for number, tumour in enumerate(lesions, start=1):
        near = grid.around(tumour.centre, tumour.reach)
        found = tumour.compartments(grid.crop(near), wm[near], csf[near], brain[near])
        free = labels[near] == 0
        labels[near] = np.where(free, found, labels[near])
        lesion[near] = np.where(free & (found > 0), number, lesion[near])
    return labels, lesion


def left_out(config: PhantomConfig, site: int, patient: int, visit: int) -> str | None:
    """The modality that a visit lacks, if it lacks one."""
    rng = np.random.default_rng([config.seed, site, patient, visit, 2])
    return str(rng.choice([*CONTRASTS])) if rng.random() < config.lost else None


def affine(resolution: float) -> NDArray[np.float64]:
    """Voxel to mm (RAS), (4, 4): BraTS' own at 1 mm, and the same field of view at any other size."""
    result = np.diag([-resolution, -resolution, resolution, 1.0])
    result[:3, 3] = np.array([0, 239, 0]) + (resolution - 1) / 2 * np.array([-1, -1, 1])
    return result


def _write_case(config: PhantomConfig, folder: Path, site: int, patient: int, visit: int) -> None:
    """Write one scan's folder: whole or not at all."""
    images, mask = make_case(config, site, patient, visit)
    joint, files = ("_", FILES_2020) if config.visits == 1 else ("-", FILES_2023)
    if config.visits == 1:
        mask[mask == ENHANCING] = 4
    to_mm = affine(config.resolution)
    with new_folder(folder) as begun:
        images.pop(left_out(config, site, patient, visit) or "", None)
        for modality, image in images.items():
            _write_nifti(begun / f"{folder.name}{joint}{files[modality]}.nii.gz", image, to_mm)
        _write_nifti(begun / f"{folder.name}{joint}seg.nii.gz", mask, to_mm)


def _write_nifti(path: Path, voxels: NDArray[np.int16] | NDArray[np.uint8], to_mm: NDArray[np.float64]) -> None:
    """One volume, gzipped without a time or a name, so that the same voxels are the same bytes."""
    image = nib.Nifti1Image(voxels, to_mm)
    image.set_qform(to_mm, code=1)
    image.set_sform(to_mm, code=1)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _write_mapping(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write grade and patient in the columns of BraTS 2020; a series too, since BraTS 2023 tells no grades."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["Grade", *(f"{column}_subject_ID" for column in COLUMNS)])
    table.writerows([grade, *["NA"] * (len(COLUMNS) - 1), name] for grade, name in rows)
    write_bytes(path, text.getvalue().encode())
