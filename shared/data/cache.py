"""Prepared scans on disk, as arrays that training memory-maps.

An entry holds the scans that must share a grid: one visit, or for series all visits of a patient. Its folder holds
`image.npy`, `mask.npy`, `foreground.npy`, `by_region.npy` and `entry.json`, which says whose it is. Entries are never
changed; the folder may be deleted at any time.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gliofed.shared.data.volume import DataError
from gliofed.shared.files import sync
from gliofed.shared.parse import MALFORMED

VERSION = 3
"""Of what an entry holds; another number prepares everything again."""
ARRAYS = ("image", "mask", "foreground", "by_region")
"""Of an entry, a file each."""


@dataclass(frozen=True)
class Entry:
    """One prepared entry, memory-mapped when it is opened. (D, H, W) are the RAS axes (X, Y, Z)."""

    image: npt.NDArray[np.float16]
    """(V, C, D, H, W); zero where a modality is missing."""
    mask: npt.NDArray[np.uint8]
    """(V, R, D, H, W), 0 or 1; no region (R = 0) for grading."""
    foreground: npt.NDArray[np.int32]
    """(K, 4): (v, d, h, w) of voxels in any region."""
    by_region: npt.NDArray[np.int32]
    """(K, 5): (v, r, d, h, w) of voxels in each region."""
    present: npt.NDArray[np.bool_]
    """(V, C): which modalities each visit has."""
    spacing: tuple[float, float, float]
    """Edges of a voxel along D, H and W, mm."""
    affine: npt.NDArray[np.float64] | None = None
    """(4, 4): indices (d, h, w) of `image` to mm, by which visits are compared; none for a label."""


def keep(identity: dict[str, object], make: Callable[[], Entry], cache: Path) -> Path:
    """Return the folder of the entry that `identity`, JSON, stands for; `make` it if it is not there.

    An entry appears by one rename, whole: a killed process leaves only a hidden folder that nobody reads, and of two
    processes that make the same entry the later one drops its copy.
    """
    of = {"version": VERSION, **identity}
    entry = cache / sha256(json.dumps(of).encode()).hexdigest()
    if entry.is_dir():
        return entry
    made = make()
    cache.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=cache))
    try:
        for key in ARRAYS:
            np.save(half / f"{key}.npy", getattr(made, key), allow_pickle=False)
        facts: dict[str, object] = {"of": of, "present": made.present.tolist(), "spacing": made.spacing}
        facts["affine"] = None if made.affine is None else made.affine.tolist()
        (half / "entry.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for file in half.iterdir():
            sync(file)
        sync(half)
        half.rename(entry)
        sync(cache)
    except OSError:
        if not entry.is_dir():  # else another process was first, with the same bytes
            raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return entry


def open_entry(entry: Path) -> Entry:
    """Memory-map what `keep` wrote; only voxels that are used are read. Raises DataError, unreadable, if damaged."""
    try:
        arrays = {key: np.load(entry / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in ARRAYS}
        facts = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        depth, height, width = facts["spacing"]
        affine = None if facts["affine"] is None else np.array(facts["affine"], np.float64)
        present = np.array(facts["present"], np.bool_)
        return Entry(**arrays, present=present, spacing=(depth, height, width), affine=affine)
    except (FileNotFoundError, EOFError, *MALFORMED):
        raise DataError("unreadable", f"{entry}: damaged; remove this folder, and it is made anew") from None
