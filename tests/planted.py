"""Planted defects: each changes one case's files as hospitals' files are wrong, in one way."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

Change = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
IMAGES = ("flair", "t1", "t1ce", "t2")


def of(folder: Path, name: str) -> Path:
    return folder / f"{folder.name}_{name}.nii.gz"


def edit(path: Path, change: Change) -> None:
    """Write what `change` makes of (array, affine)."""
    image = nib.load(path)
    array, affine = change(np.asarray(image.dataobj), image.affine)
    path.write_bytes(gzip.compress(nib.Nifti1Image(array, affine).to_bytes(), mtime=0))


def every(names: tuple[str, ...], change: Change) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        for name in names:
            edit(of(folder, name), change)

    return plant


def raw(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        of(folder, name).write_bytes(change(of(folder, name).read_bytes()))

    return plant


def _without_codes(content: bytes) -> bytes:
    header = bytearray(gzip.decompress(content))
    header[252:256] = bytes(4)  # qform_code and sform_code
    return gzip.compress(bytes(header), mtime=0)


def _nan(array: np.ndarray, affine: np.ndarray) -> tuple[Any, Any]:
    array = array.astype(np.float32)
    array[3, 4, 5] = np.nan
    return array, affine


def _scaled(*edges: float) -> Change:
    return lambda array, affine: (array, affine @ np.diag([*edges, 1]))


def _one_voxel(array: np.ndarray, affine: np.ndarray) -> tuple[Any, Any]:
    place = tuple(np.argwhere(array > 0)[0])
    array = np.zeros_like(array)
    array[place] = 2
    return array, affine


def _corner(array: np.ndarray, affine: np.ndarray) -> tuple[Any, Any]:
    array = np.zeros_like(array)
    array[:2, :2, :2] = 2
    return array, affine


def _everywhere(folder: Path) -> None:
    brain = np.asarray(nib.load(of(folder, "t1")).dataobj) != 0
    edit(of(folder, "seg"), lambda array, affine: (brain.astype(np.uint8) * 2, affine))


def swap(one: str, other: str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        first, second = of(folder, one).read_bytes(), of(folder, other).read_bytes()
        of(folder, one).write_bytes(second)
        of(folder, other).write_bytes(first)

    return plant


def relabel(**values: int) -> Change:
    """Other labels: _1=3 makes 1 to 3; those not named stay."""

    def change(array: np.ndarray, affine: np.ndarray) -> tuple[Any, Any]:
        table = np.arange(256)
        for name, value in values.items():
            table[int(name[1:])] = value
        return table[array.astype(int)].astype(np.uint8), affine

    return change


def mirror(array: np.ndarray, affine: np.ndarray) -> tuple[Any, Any]:
    return array[::-1], affine


def _one_image(folder: Path) -> None:
    """The same voxels as float32 with other bytes."""
    shutil.copy(of(folder, "t1"), of(folder, "t1ce"))
    edit(of(folder, "t1ce"), lambda array, affine: (array.astype(np.float32), affine))


def copy_of(clean: Path) -> Callable[[Path], None]:
    """The scans of another case: uncompressed, as big-endian float64 and with axes turned."""

    def plant(folder: Path) -> None:
        for name in (*IMAGES, "seg"):
            of(folder, name).unlink()
            turned = nib.as_closest_canonical(nib.load(of(clean, name)))
            array = np.asarray(turned.dataobj).astype(">f8")
            (folder / f"{folder.name}_{name}.nii").write_bytes(nib.Nifti1Image(array, turned.affine).to_bytes())

    return plant


PLANTS: dict[str, Callable[[Path], object]] = {
    # The third byte after gzip's header: a deflate block of the type that there is none of.
    "unreadable": raw("t1", lambda content: content[:10] + b"\xff" + content[11:]),
    "truncated": raw("t1", lambda content: content[:-40]),
    "bad_crc": raw("t1", lambda content: content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]),
    "empty_file": raw("t1", lambda content: b""),
    "wrong_format": raw("t1", gzip.decompress),
    "non_finite": every(("t1",), _nan),
    "not_3d": every(("t1",), lambda array, affine: (np.stack([array, array], 3), affine)),
    "two_files": lambda folder: shutil.copy(of(folder, "t1"), folder / f"{folder.name}_t1 (1).nii.gz"),
    "missing_modality": lambda folder: of(folder, "t1").unlink(),
    "missing_mask": lambda folder: of(folder, "seg").unlink(),
    "label_values": every(("seg",), lambda array, affine: (np.where(array == 4, 3, array), affine)),
    "shape_mismatch": every(("t1",), lambda array, affine: (array[:-1], affine)),
    "affine_mismatch": every(("t1",), lambda array, affine: (array, affine + np.outer([1, 0, 0, 0], [0, 0, 0, 9]))),
    "no_spatial_header": raw("t1", _without_codes),
    "spacing": every((*IMAGES, "seg"), _scaled(2, 2, 2)),  # 16 mm
    "size": every((*IMAGES, "seg"), lambda array, affine: (array[:, :, 8:12], affine)),
    "same_image_twice": _one_image,
    "constant_image": every(("t2",), lambda array, affine: (np.full_like(array, 7), affine)),
    "empty_mask": every(("seg",), lambda array, affine: (np.zeros_like(array), affine)),
    "not_skull_stripped": every(("t1",), lambda array, affine: (array + np.int16(9), affine)),
    "thick_slices": every((*IMAGES, "seg"), _scaled(0.62, 1.25, 1.25)),  # about 5, 10 and 10 mm, and a brain as large
    "tiny_tumour": every(("seg",), _one_voxel),
    "huge_tumour": _everywhere,
    "mask_outside_brain": every(("seg",), _corner),
    "modalities_swapped": swap("t1", "t1ce"),
    "mask_misplaced": every(("seg",), mirror),
    "label_scheme": every(("seg",), relabel(_1=4, _4=1)),
    "binary_mask": every(("seg",), lambda array, affine: ((array > 0).astype(np.uint8), affine)),
    "intensity_outlier": every(("t2",), lambda array, affine: (array * np.int16(15), affine)),
}
"""Code -> what gives a case this fault and no other. Those that compare cases, or are of no case, need more."""
