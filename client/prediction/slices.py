"""Slices for a report: the best, the median and the worst patient, with truth and prediction outlined."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliofed.client.doctor.manifest import admit
from gliofed.client.prediction.predict import Predictor
from gliofed.shared.data.dataset import Patient, Reading, open_cohort
from gliofed.shared.data.measuring import measure_each
from gliofed.shared.data.samples import Batch, whole
from gliofed.shared.data.volume import DataError
from gliofed.shared.models import reads_series
from gliofed.shared.site_config import SiteConfig

MOST = 200
"""Patients that are measured for it, at most, evenly from all sites."""
EDGE = 360
"""Pixels of the longer edge of a picture."""
COLOURS = {"green": (0, 200, 120), "orange": (255, 140, 0), "blue": (90, 170, 255)}
"""Of the regions' outlines, in their order; the prediction's are dashed."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scored:
    """One patient, measured."""

    site: str
    patient: Patient
    score: float


@torch.no_grad()
def slices(predictor: Predictor, sites: Sequence[SiteConfig]) -> list[dict[str, str]]:
    """The best, the median and the worst of the sites' patients by the headline metric: rank, words without a name,
    and a PNG in base64. Nothing where there are fewer than three patients whom the model was not trained on.
    """
    task, data, reading = predictor.task, predictor.exported.data, _reading(predictor)
    part, patients = held_out(predictor, sites)
    scored = []
    people = [patient for _, patient in patients]
    measures = measure_each(task, predictor.network, people, data, reading, predictor.device)
    for (site, patient), measured in zip(patients, measures, strict=True):
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
        batch = next(iter(whole(one.patient, data, reading))).to(predictor.device)
        logits = task.logits(predictor.network, batch.inputs, data).cpu()
        about, picture = (_graded if task.label else _outlined)(predictor, batch, logits, one)
        about = f"of {len(scored)} {part} patients, at {one.site}: {about}"
        found.append({"rank": rank, "about": about, "png": _png(picture)})
    return found


def held_out(predictor: Predictor, sites: Sequence[SiteConfig]) -> tuple[str, list[tuple[str, Patient]]]:
    """The patients that no weight was trained on, by site: for the test where some are, else for validation."""
    exported, cohorts = predictor.exported, {}
    for site in sites:
        try:
            usable = admit(site, exported.data, exported.task)
            cohorts[site.name] = open_cohort(site, exported.data, _reading(predictor), usable.cases)
        except DataError:  # a site that could not take part has none
            continue
    part = "test" if any(getattr(cohort, "test", None) for cohort in cohorts.values()) else "validation"
    patients = [(site, patient) for site, cohort in cohorts.items() for patient in getattr(cohort, part)]
    return part, patients[:: max(1, math.ceil(len(patients) / MOST))]


def legend(predictor: Predictor) -> str:
    """What the pictures show."""
    if predictor.task.label is not None:
        return "Each is the middle of the block that the model reads, ranked by its loss."
    named = zip(predictor.exported.data.regions, COLOURS, strict=False)
    regions = ", ".join(f"{region.upper()} {colour}" for region, colour in named)
    return f"Outlined: {regions}; truth solid, prediction dashed and paler. Axial, the patient's right at the left."


def _reading(predictor: Predictor) -> Reading:
    return predictor.task.label or ("series" if reads_series(predictor.exported.model.name) else "visits")


def _outlined(predictor: Predictor, batch: Batch, logits: Tensor, one: Scored) -> tuple[str, Bytes]:
    """The axial slice with most of the truth, or of the prediction where there is none."""
    image, truth, mask = _visit(batch.image.cpu()), _visit(batch.target.cpu()), _visit(logits) > 0
    extent = truth if truth.any() else mask
    depth = int(extent.any(0).sum(dim=(0, 1)).argmax())  # the last axis is from feet to head
    picture = _grey(_shown(image)[:, :, depth].numpy())
    for place in range(truth.shape[0]):
        colour = [*COLOURS.values()][place % len(COLOURS)]
        for outline, dashed in ((truth[place], False), (mask[place], True)):
            _draw(picture, _big(outline[:, :, depth].numpy() > 0, picture.shape[:2]), colour, dashed)
    return f"{predictor.task.headline} {one.score:.3f}", _upright(picture)


def _graded(predictor: Predictor, batch: Batch, logits: Tensor, one: Scored) -> tuple[str, Bytes]:
    """The middle of the block, with the true value and what the model says."""
    label = predictor.task.label
    assert label is not None
    image = _visit(batch.image.cpu())
    said = label.answer(logits.flatten()[0])
    words = ", ".join(f"{name} {value}" for name, value in zip(label.columns, said, strict=True))
    return f"true {one.patient.value}; predicted {words}", _upright(
        _grey(_shown(image)[:, :, image.shape[-1] // 2].numpy())
    )


def _shown(image: Tensor) -> Tensor:
    """The first modality that is there, (D, H, W)."""
    return next((each for each in image if each.any()), image[0])


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
