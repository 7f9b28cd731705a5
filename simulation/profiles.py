"""What a partition asks of a cohort: grade, tumour volume and scanner of each patient; files are measured once."""

import json
import os
import re
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from gliofed.shared.data.cases import Case, Grade, Side
from gliofed.shared.data.volume import Scan, tumour_volume
from gliofed.shared.files import write_json
from gliofed.shared.processes import cores

Report = Callable[[int, int], None]
"""Called with what is done so far and all there will be."""
VERSION = 1
"""Of what is measured; another number measures everything again."""
READERS = 8
"""Files open at the same time, at most: a mask at 1 mm takes about 100 MB while it is counted."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One patient as a partition sees it. What the partition does not ask for stays None."""

    name: str
    grade: Grade | None = None
    volume: float | None = None
    """mm3 of the tumour, all labels, at the first visit; None too where its mask is missing or cannot be read."""
    scanner: str | None = None
    """As the data say, or a signature of the first image's header; None too where that cannot be read."""
    side: Side | None = None
    """Training or validation, where the data say."""


def profile(cases: Sequence[Case], partition: str, root: Path, store: Path, report: Report) -> list[Profile]:
    """Profiles of the patients of `cases`, as far as `partition` needs them, by name.

    by_size reads every first mask, dirichlet those of patients without a grade, by_scanner headers, the others no file.
    What was measured is kept in `store`, JSON, and asked again only of files that changed. A file that cannot be read
    is no error here: the site that gets the patient says so.
    """
    last_first = cases[::-1]  # so that the first visit of a patient stays
    grades = {case.patient: case.grade for case in last_first if case.grade is not None}
    sides = {case.patient: case.side for case in last_first if case.side is not None}
    masks, images, scanners = dict[str, Scan](), dict[str, Scan](), dict[str, str]()
    if partition in ("by_size", "dirichlet"):
        graded = grades if partition == "dirichlet" else {}
        masks = {case.patient: case.mask for case in last_first if case.mask is not None and case.patient not in graded}
    if partition == "by_scanner":
        scanners = {case.patient: case.scanner for case in last_first if case.scanner is not None}
        unknown = [case for case in last_first if case.images and case.patient not in scanners]
        images = {case.patient: case.images[min(case.images)] for case in unknown}
    volumes = _measured(masks, "volume", tumour_volume, root, store, report)
    scanners |= _measured(images, "header", _header, root, store, report)
    return [
        Profile(
            name=name,
            grade=grades.get(name),
            volume=volumes.get(name),
            scanner=scanners.get(name),
            side=sides.get(name),
        )
        for name in sorted({case.patient for case in cases})
    ]


def _measured(
    scans: dict[str, Scan], what: str, measure: Callable[[Scan], Any], root: Path, store: Path, report: Report
) -> dict[str, Any]:
    """`measure` of each scan by patient, from `store` where the file is as it was; left out where it cannot be read."""
    if not scans:
        return {}
    kept, keys = _read(store), {name: _key(what, scan, root) for name, scan in scans.items()}
    new = [name for name in scans if keys[name] not in kept]
    try:
        with ThreadPoolExecutor(min(READERS, cores())) as pool:  # unpacking and counting leave Python's lock
            values = pool.map(measure, (scans[name] for name in new))
            for done, (name, value) in enumerate(zip(new, values, strict=True), start=1):
                if value is not None:  # a file that cannot be read is tried again next time
                    kept[keys[name]] = value
                report(done, len(new))
    finally:
        if new:
            write_json(store, {"version": VERSION, "of": kept})
    return {name: kept[key] for name, key in keys.items() if key in kept}


def _read(store: Path) -> dict[str, Any]:
    """What `store` keeps; nothing where it is missing, damaged or of another version."""
    try:
        content = json.loads(store.read_text(encoding="utf-8"))
        return dict(content["of"]) if content["version"] == VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _key(what: str, scan: Scan, root: Path) -> str:
    """Changes whenever the file does."""
    try:
        stat = scan.path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        stamp = []
    return json.dumps([what, os.path.relpath(scan.path, root), scan.channel, *stamp])


def _header(image: Scan) -> str | None:
    """Voxel spacing in mm, size, type of numbers and description: what a scanner and its export leave in a file."""
    try:
        header: Any = nib.load(image.path).header
        spacing = ",".join(f"{edge:.2f}" for edge in header.get_zooms()[:3])
        size = ",".join(str(count) for count in header.get_data_shape()[:3])
        described = bytes(header["descrip"]).rstrip(b"\0 ").decode("latin-1")
        described = re.sub(r"Time=[\d.]*;?", "", described)  # of dcm2niix: of the scan, not of the scanner
        return f"{spacing} mm {size} {header.get_data_dtype()} {described}"
    except (OSError, EOFError, ValueError, KeyError, zlib.error, ImageFileError, HeaderDataError, WrapStructError):
        return None
