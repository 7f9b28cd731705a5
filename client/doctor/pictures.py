"""Small pictures of a place in a scan."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from gliofed.shared.data.volume import Volume

EDGE = 176
"""Longest edge of a picture, pixels."""
OUTLINE = (255, 64, 32)

Marks = npt.NDArray[np.bool_]


def picture(volume: Volume, marks: Marks | None = None) -> bytes:
    """PNG of the axial slice with most of `marks` (X, Y, Z), which are outlined; the middle slice without any.

    Seen from the feet, as radiologists do: the patient's right is on the left, the front is up.
    """
    z = volume.array.shape[2] // 2
    if marks is not None and marks.any():
        z = int(marks.sum((0, 1)).argmax())
    pixels = Image.fromarray(_grey(_seen(volume.array[:, :, z])))
    mm = [max(count * edge, 1e-3) for count, edge in zip(pixels.size, volume.spacing, strict=False)]
    width, height = (int(np.clip(round(EDGE * edge / max(mm)), 8, EDGE)) for edge in mm)
    shown = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR).convert("RGB")).copy()
    if marks is not None:
        small = Image.fromarray(_seen(marks[:, :, z]))
        on = np.asarray(small.resize((width, height), Image.Resampling.NEAREST), dtype=bool)
        shown[on & ~ndimage.binary_erosion(on)] = OUTLINE
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "PNG", compress_level=1)  # more costs more time than all the reading
    return file.getvalue()


def _seen(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn (X, Y), to the right and the front, into rows from front to back and columns from right to left."""
    return np.ascontiguousarray(plane.T[::-1, ::-1])


def _grey(plane: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Scale from the lowest value to the 99.5th percentile; what is not finite is black."""
    finite = np.where(np.isfinite(plane), plane, 0).astype(np.float64)
    low, high = float(finite.min()), float(np.percentile(finite, 99.5))
    high = high if high > low else float(finite.max())
    if high <= low:
        return np.zeros(finite.shape, np.uint8)
    return np.asarray(np.clip((finite - low) / (high - low), 0, 1) * 255, np.uint8)
