"""Read and check one NIfTI file."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

Floats = npt.NDArray[np.float32]

# What gzip and nibabel raise over damaged bytes.
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError)


class DataError(ValueError):
    """A scan or a folder that cannot be used.

    `code` alone may leave the site; the sentence names the file, the value and the cure, and stays.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence)  # both, so that the error survives a pickle between our own processes
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True)
class Scan:
    """Where one volume is: a file of its own, or a channel of a file with several."""

    path: Path
    channel: int | None = None
    """Place along the file's fourth axis; None: the file holds one volume."""

    def __str__(self) -> str:
        return f"{self.path}" if self.channel is None else f"{self.path} (channel {self.channel})"


@dataclass(frozen=True)
class Volume:
    """One scan, axes to the patient's right, front and head (RAS)."""

    array: Floats
    """(X, Y, Z), finite."""
    spacing: tuple[float, float, float]
    """Voxel edges along X, Y, Z in mm."""
    affine: npt.NDArray[np.float64]
    """(4, 4): voxel indices of `array` to mm."""


def read_volume(scan: Scan) -> Volume:
    """Read a .nii or .nii.gz whole, a gzip stream to the checksum at its end, and turn it to RAS.

    Trailing axes of length one are dropped: (X, Y, Z, 1) is one volume.
    Raises DataError: unreadable (missing, truncated, damaged, not NIfTI), not_3d, non_finite.
    """
    path, image = scan.path, _image(scan.path)
    shape = tuple(image.shape)
    if scan.channel is not None:
        if len(shape) != 4 or scan.channel >= shape[3]:
            raise DataError("not_3d", f"{scan}: no such channel, the file has shape {shape}; give a 4D file with it")
    elif len(shape) < 3 or any(size != 1 for size in shape[3:]) or 0 in shape:
        raise DataError(
            "not_3d", f"{path}: expected one 3D volume, got shape {shape}; split a 4D series into one file a visit"
        )
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes inf: refused below
            data = image.dataobj if scan.channel is None else image.dataobj[..., scan.channel]
            array: Floats = np.asanyarray(data, dtype=np.float32).reshape(shape[:3])
        turned = nib.Nifti1Image(array, image.affine)
        turned = nib.as_closest_canonical(turned)
        array = np.asanyarray(turned.dataobj)
    except (OSError, ValueError, np.linalg.LinAlgError, OrientationError) as error:
        raise _unreadable(path, error) from error
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise DataError(
            "non_finite", f"{scan}: {bad} of {array.size} voxels are NaN or infinite; export it again, or set them to 0"
        )
    x, y, z = (float(edge) for edge in voxel_sizes(turned.affine))
    return Volume(array, (x, y, z), turned.affine)


def _image(path: Path) -> Any:
    """Decode the header over the bytes of the whole file; nibabel itself stops before a gzip's checksum."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        # A NIfTI-2 header says it is 540 bytes long, in either byte order.
        kind = nib.Nifti2Image if content[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        image = kind.from_bytes(content)
        proxy = image.dataobj
        needed = proxy.offset + int(np.prod(image.shape, dtype=object)) * proxy.dtype.itemsize
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if len(content) < needed:  # before numpy asks for memory that a damaged header claims
        raise _unreadable(path, f"holds {len(content)} bytes, its header says {needed}")
    return image


def _unreadable(path: Path, why: object) -> DataError:
    return DataError("unreadable", f"{path}: not a whole NIfTI file ({why}); copy it again from its source")
