"""Slices for the report: the best, the median and the worst patient, with truth and prediction outlined."""

import base64
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gliofed.client.doctor.manifest import admit
from gliofed.client.round.training import pick_device
from gliofed.shared.algorithms import kept_of
from gliofed.shared.codec import load_weights, weights_from_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Patient, open_cohort
from gliofed.shared.data.samples import Batch, whole
from gliofed.shared.files import write_json
from gliofed.shared.run_folder import ModelFolder, SimulationFolder
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, model_of, reading_of

MOST = 200
"""Patients that are measured for it, at most, evenly from all sites."""
EDGE = 360
"""Pixels of the longer edge of a picture."""
COLOURS = ((0, 200, 120), (255, 140, 0), (90, 170, 255))
"""Of the regions' outlines, in their order; the prediction's are dashed."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scored:
    """One patient, measured."""

    site: str
    patient: Patient
    score: float


def write_slices(out: Path, run: RunConfig, sites: Sequence[SiteConfig], synthetic: bool) -> None:
    """Write slices.json of the model that a run left; a fault is said in one line, and ends nothing.

    Nothing is written where the run left no model, or sites have tensors of their own.
    """
    weights = ModelFolder(SimulationFolder(out).model).weights
    if not weights.exists() or kept_of(run):
        return
    try:
        model = model_of(run)
        load_weights(model, weights_from_bytes(weights.read_bytes()))
        found = slices(run, sites, model)
        if found:
            whose = "They are made up." if synthetic else "They are of YOUR OWN SCANS: this page shows patients."
            write_json(SimulationFolder(out).slices, {"note": f"{whose} {_legend(run)}", "slices": found})
    except Exception as error:
        print(f"{SimulationFolder(out).slices}: not drawn: {error!r}"[:300], file=sys.stderr, flush=True)


@torch.no_grad()
def slices(run: RunConfig, sites: Sequence[SiteConfig], model: nn.Module) -> list[dict[str, str]]:
    """The best, the median and the worst patient by the headline metric: picture, rank, and words without a name."""
    task, reading = TASKS[run.task], reading_of(run)
    device = pick_device(sites[0].device)
    model = model.to(device).eval()
    part, patients = held_out(run, sites)
    scored = []
    for site, patient in patients:
        measured = task.measure(model, whole(patient, run.data, reading), run.data, device)
        score = task.summarise([measured]).get(task.headline, math.nan)
        if task.label is not None:  # right or wrong says little: how sure it was tells patients apart
            score = -measured["loss"]
        if math.isfinite(score):
            scored.append(Scored(site, patient, score))
    sign = 1 if getattr(task, "lower_is_better", False) and task.label is None else -1
    scored.sort(key=lambda each: sign * each.score)
    places = {"Best": 0, "Median": len(scored) // 2, "Worst": len(scored) - 1} if len(scored) > 2 else {}
    found = []
    for rank, place in places.items():
        one = scored[place]
        batch = next(iter(whole(one.patient, run.data, reading))).to(device)
        logits = task.logits(model, batch.inputs, run.data).cpu()
        about, picture = (_graded if task.label else _outlined)(run, batch, logits, one)
        about = f"of {len(scored)} {part} patients, at {one.site}: {about}"
        found.append({"rank": rank, "about": about, "png": _png(picture)})
    return found


def held_out(run: RunConfig, sites: Sequence[SiteConfig]) -> tuple[str, list[tuple[str, Patient]]]:
    """The patients that no weight was trained on, by site: for the test where some are, else for validation."""
    cohorts = {}
    for site in sites:
        try:
            usable = admit(site, run.data, run.task)
            cohorts[site.name] = open_cohort(site, run.data, reading_of(run), usable.cases)
        except ValueError:  # a site that could not take part has none
            continue
    part = "test" if any(getattr(cohort, "test", None) for cohort in cohorts.values()) else "validation"
    patients = [(site, patient) for site, cohort in cohorts.items() for patient in getattr(cohort, part)]
    return part, patients[:: max(1, math.ceil(len(patients) / MOST))]


def _outlined(run: RunConfig, batch: Batch, logits: Tensor, one: Scored) -> tuple[str, Bytes]:
    """The axial slice with most of the truth, or of the prediction where there is none."""
    image, truth, mask = _visit(batch.image.cpu()), _visit(batch.target.cpu()), _visit(logits) > 0
    extent = truth if truth.any() else mask
    depth = int(extent.any(0).sum(dim=(0, 1)).argmax())  # the last axis is from feet to head
    picture = _grey(image[0, :, :, depth].numpy())
    for place in range(truth.shape[0]):
        for outline, dashed in ((truth[place], False), (mask[place], True)):
            _draw(picture, _big(outline[:, :, depth].numpy() > 0, picture.shape[:2]), COLOURS[place % 3], dashed)
    return f"{TASKS[run.task].headline} {one.score:.3f}", _upright(picture)


def _graded(run: RunConfig, batch: Batch, logits: Tensor, one: Scored) -> tuple[str, Bytes]:
    """The middle of the block, with the true value and what the model says."""
    label = TASKS[run.task].label
    assert label is not None
    image = _visit(batch.image.cpu())
    said = label.answer(logits.flatten()[0])
    words = ", ".join(f"{name} {value}" for name, value in zip(label.columns, said, strict=True))
    return f"true {one.patient.value}; predicted {words}", _upright(_grey(image[0, :, :, image.shape[-1] // 2].numpy()))


def _visit(volume: Tensor) -> Tensor:
    """The first visit, (C, D, H, W)."""
    return volume[0] if volume.dim() == 5 else volume[0, 0]


def _grey(plane: npt.NDArray[np.floating[Any]]) -> Bytes:
    """A plane as RGB, with its darkest and brightest hundredth cut off, whole pixels large."""
    low, high = np.percentile(plane, (1, 99.5))
    grey = (np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 220).astype(np.uint8)
    factor = max(1, EDGE // max(grey.shape))
    return np.repeat(grey.repeat(factor, 0).repeat(factor, 1)[..., None], 3, axis=2)


def _big(plane: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    factor = shape[0] // plane.shape[0]
    return plane.repeat(factor, 0).repeat(factor, 1)


def _draw(picture: Bytes, mask: npt.NDArray[np.bool_], colour: tuple[int, int, int], dashed: bool) -> None:
    """Draw the inner edge of a mask, every second stretch of a prediction's."""
    from scipy.ndimage import binary_erosion

    edge = mask & ~binary_erosion(mask, iterations=2)
    if dashed:
        rows, columns = np.indices(mask.shape)
        edge &= (rows + columns) // 5 % 2 == 0
        colour = tuple((255 + part) // 2 for part in colour)  # type: ignore[assignment]
    picture[edge] = colour


def _upright(picture: Bytes) -> Bytes:
    """From (x, y) of RAS to a picture with the front above, and the patient's right at the left, as radiologists do."""
    return np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1, ::-1])


def _png(picture: Bytes) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def _legend(run: RunConfig) -> str:
    if TASKS[run.task].label is not None:
        return "Each is the middle of the block that the model reads, ranked by its loss."
    named = zip(run.data.regions, ("green", "orange", "blue"), strict=False)
    regions = ", ".join(f"{region.upper()} {colour}" for region, colour in named)
    return f"Outlined: {regions}; truth solid, prediction dashed and paler. Axial, the patient's right at the left."
