"""Read and check one NIfTI file."""

import gzip
import threading
import zlib
from dataclasses import dataclass, field
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

from gliofed.shared.terminal import UserError
from gliofed.shared.wording import quantity

Floats = npt.NDArray[np.float32]

# What gzip and nibabel raise over damaged bytes.
_DAMAGE = (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError, WrapStructError)


class DataError(UserError, ValueError):
    """A scan or a folder that cannot be used.

    `code` alone may leave the site; the sentence names the file, the value and the cure, and stays.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, sentence)  # both, so that the error survives a pickle between our own processes
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])


FLATTEST = 0.5
"""Least volume of a voxel, as a share of the box that its edges would span: axes of a scan are at right angles."""
FARTHEST = 10_000.0
"""Largest offset of a volume, mm."""


FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer and not the scan itself; fetch the scan with git lfs pull",
    b"/annex/objects/": "a git-annex pointer and not the scan itself; fetch the scan with git annex get",
    b"<": "a web page, such as a login page, and not the scan; download it again",
    b"{": "a server's message in JSON, and not the scan; download it again",
    b"pk\x03\x04": "a zip archive; unpack it",
    b"objecttype": "MetaImage; convert it to NIfTI",
    b"nrrd": "NRRD; convert it to NIfTI",
}
"""How files begin that are no NIfTI, in lower case, and what they are."""
STARTS = 64
"""Bytes in which that shows."""


@dataclass(frozen=True)
class Scan:
    """Where one volume is: a file of its own, or a channel of a file with several."""

    path: Path
    channel: int | None = None
    """Place along the file's fourth axis; None: the file holds one volume."""
    channels: int | None = field(default=None, compare=False)
    """Length of that axis, where it is known: time points look like modalities."""

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
    Raises DataError: unreadable (missing, damaged, not NIfTI), truncated, not_3d, non_finite.
    """
    volume = volume_of(scan, read_image(scan.path) if scan.channel is None else _shared_image(scan.path, scan.channel))
    check_finite(scan, volume)
    return volume


def tumour_volume(mask: Scan) -> float | None:
    """mm3 of all that is not background; None where the mask cannot be read."""
    try:
        volume = read_volume(mask)
    except DataError:
        return None
    return float(np.count_nonzero(volume.array > 0) * np.prod(volume.spacing))


def volume_of(scan: Scan, image: Any) -> Volume:
    """Turn a scan to RAS; `image` is nibabel's, of the scan's file. Its voxels may not be finite: see `check_finite`.

    Raises DataError: unreadable, not_3d, no_spatial_header (an affine that no scanner writes).
    """
    path, shape = scan.path, tuple(image.shape)
    if scan.channel is not None:
        if len(shape) != 4 or scan.channel >= shape[3] or scan.channels not in (None, shape[3]):
            wanted = quantity(scan.channels, "channel") if scan.channels else "one more channel"
            raise DataError("not_3d", f"{scan}: the file has shape {shape}; give a 4D file with {wanted}")
    elif len(shape) < 3 or any(size != 1 for size in shape[3:]) or 0 in shape:
        raise DataError(
            "not_3d", f"{path}: expected one 3D volume, got shape {shape}; split a 4D series into one file a visit"
        )
    if image.get_data_dtype().kind == "c":
        raise DataError("unreadable", f"{path}: voxels are complex numbers; export the magnitude")
    if image.get_data_dtype().kind == "V":
        raise DataError("unreadable", f"{path}: voxels are colours; export the grey image")
    try:
        with np.errstate(all="ignore"):  # what float32 cannot hold becomes inf: refused later
            data = image.dataobj if scan.channel is None else image.dataobj[..., scan.channel]
            array: Floats = np.asanyarray(data, dtype=np.float32).reshape(shape[:3])
            turned = nib.as_closest_canonical(nib.Nifti1Image(array, image.affine))
        array = np.asanyarray(turned.dataobj)
    except (*_DAMAGE, TypeError, np.linalg.LinAlgError, OrientationError) as error:
        raise _unreadable(path, error) from error
    x, y, z = (float(edge) for edge in voxel_sizes(turned.affine))
    with np.errstate(all="ignore"):
        flat = abs(np.linalg.det(turned.affine[:3, :3])) < FLATTEST * x * y * z
    if flat or x * y * z == 0 or np.abs(turned.affine[:3, 3]).max() > FARTHEST:
        raise DataError(
            "no_spatial_header",
            f"{path}: its header puts the voxels into a plane or more than {FARTHEST / 1000:g} m away; "
            "convert it again from DICOM",
        )
    return Volume(array, (x, y, z), turned.affine)


def check_finite(scan: Scan, volume: Volume) -> None:
    """Raise DataError, non_finite, where a voxel is NaN or infinite."""
    size, bad = volume.array.size, int(volume.array.size - np.isfinite(volume.array).sum())
    if bad:
        found = f"{bad} of {quantity(size, 'voxel')} {'is' if bad == 1 else 'are'} NaN or infinite"
        raise DataError("non_finite", f"{scan}: {found}; export it again, or set them to 0")


class _Kept(threading.local):
    """The file with channels that this thread read last, until all of them were asked for or it reads another."""

    of: tuple[Path, int, int] | None = None
    image: Any = None
    left: frozenset[int] = frozenset()


_kept = _Kept()


def _shared_image(path: Path, channel: int) -> Any:
    """Decode a file with channels once, though it is read channel by channel."""
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    of = (path, state.st_size, state.st_mtime_ns)
    if _kept.of != of:
        image = read_image(path)
        _kept.of, _kept.image, _kept.left = of, image, frozenset(range((*image.shape, 0, 0, 0, 0)[3]))
    image, _kept.left = _kept.image, _kept.left - {channel}
    if not _kept.left:
        _kept.of = _kept.image = None
    return image


def check_foreign(path: Path, start: bytes) -> None:
    """Raise DataError, wrong_format, where a file begins as something that is known and no scan."""
    start = start.lstrip(b"\xef\xbb\xbf\r\n\t ").lower()  # also a byte order mark
    if what := next((what for begin, what in FOREIGN.items() if start.startswith(begin)), None):
        raise DataError("wrong_format", f"{path}: is {what}")


def read_image(path: Path) -> Any:
    """Decode the bytes of the whole file; nibabel itself stops before a gzip's checksum."""
    _kept.of = _kept.image = None  # before the next file is in memory
    try:
        content = path.read_bytes()
        check_foreign(path, content[:STARTS])
        content = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
    except DataError:
        raise
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    return image_of(path, content)


def image_of(path: Path, content: bytes) -> Any:
    """Decode a header, nibabel's image over the unzipped bytes of a whole file.

    Raises DataError: unreadable, truncated, spacing (an edge of 0 mm, where the affine follows from the edges).
    """
    try:
        # A NIfTI-2 header says it is 540 bytes long, in either byte order.
        kind = nib.Nifti2Image if content[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
        with np.errstate(all="ignore"):  # over nonsense in a damaged header
            image = kind.from_bytes(content)
        edges = kind.header_class(content[: kind.header_class.sizeof_hdr], check=False)["pixdim"][1:4]
        proxy = image.dataobj
        needed = proxy.offset + int(np.prod(image.shape, dtype=object)) * proxy.dtype.itemsize
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if not image.header["sform_code"] and not (np.isfinite(edges) & (edges != 0)).all():  # nibabel makes it 1 mm
        shown = "x".join(f"{edge:g}" for edge in edges)
        raise DataError("spacing", f"{path}: its header says voxels of {shown} mm; convert it again from DICOM")
    if len(content) < needed:  # before numpy asks for memory that a damaged header claims
        raise DataError(
            "truncated",
            f"{path}: holds {quantity(len(content), 'byte')}, its header says {needed}; copy it again from its source",
        )
    return image


def _unreadable(path: Path, why: object) -> DataError:
    return DataError("unreadable", f"{path}: not a whole NIfTI file ({why}); copy it again from its source")
