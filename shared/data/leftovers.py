"""What of a root is in no case: not understood, or known and not used. Each is named, so that no patient vanishes."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from shared.data.cases import Case
from shared.data.folders import Folder
from shared.data.names import SEPARATORS, conversion, image_name

NEAREST = {
    "BraTS 2018-2019": "HGG/ID/ID_{t1,t1ce,t2,flair,seg}.nii.gz",
    "BraTS 2020-2021": "ID/ID_{t1,t1ce,t2,flair,seg}.nii.gz",
    "BraTS 2023-2024": "ID-VVV/ID-VVV-{t1n,t1c,t2w,t2f,seg}.nii.gz",
    "UCSF-PDGM": "UCSF-PDGM-NNNN_nifti/UCSF-PDGM-NNNN_{T1,T1c,T2,FLAIR,tumor_segmentation}.nii.gz",
    "LUMIERE": "Patient-NNN/week-WWW/{T1,CT1,T2,FLAIR}.nii.gz",
}
"""What a folder of a layout looks like."""
_SHOWN = 3
"""Most files that a sentence names."""

Alone = Callable[[Folder], list[Case]]
"""The cases that a folder would be if it were the only one."""


@dataclass(frozen=True)
class Stray:
    """A folder, or files in it, that no case has; it stays at the site, since names may be a patient's."""

    folder: Path
    files: list[Path]
    """Image files there and below; none where the folder is empty."""
    nearest: str
    """The layout that it is measured by: a key of NEAREST, or the table."""
    reason: str
    """Why no case has them, and what would make them fit."""

    def __str__(self) -> str:
        names = [str(file.relative_to(self.folder)) for file in self.files[:_SHOWN]]
        more = f" and {len(self.files) - _SHOWN} more" if len(self.files) > _SHOWN else ""
        what = f"{', '.join(names)}{more}: " if names else ""
        form = f" (nearest is {self.nearest}: {NEAREST[self.nearest]})" if names and self.nearest in NEAREST else ""
        return f"{self.folder}: {what}{self.reason}{form}"


def counted(strays: Collection[Stray]) -> str:
    """How many there are, without a name.

    >>> counted([Stray(Path("P"), [Path("P/a.mha")], "cases.csv", "no row")])
    '1 folder with 1 image file'
    """
    folders, files = len(strays), sum(len(stray.files) for stray in strays)
    return f"{folders} folder{'s' * (folders != 1)} with {files} image file{'s' * (files != 1)}"


def not_understood(root: Folder, layout: str | None, known: set[Path], alone: Alone) -> list[Stray]:
    """Name the highest folders without a case in them or above, unless they hold other files only, and loose images."""
    above = {parent for path in known for parent in path.parents}
    return list(_strays(root, layout, known, above, alone))


def not_in_table(root: Folder, table: str, read: set[Path], known: set[Path]) -> list[Stray]:
    """Name, together, the image files under `root` that a table does not: one finding, if there are any."""
    named = _resolved(read | known)
    left = [path for path, folder in _images_outside(root, known) if folder / path.name not in named]
    reason = "; ".join([f"{table} names no such file; add what belongs to a case, or ignore this", *_cures(left)])
    return [Stray(root.path, left, table, reason)] if left else []


def not_used(root: Folder, read: set[Path], known: set[Path]) -> Counter[str]:
    """Count, by pattern of names, what is known and not read; and files in folders without any image."""
    counts = Counter[str]()
    pending: list[tuple[Folder, Path | None]] = [(root, None)]
    while pending:
        folder, home = pending.pop()
        home = folder.path if folder.path in known else home
        for path in folder.images:
            if path not in read and (home or path in known):
                cure = conversion(path.name)
                counts[_pattern(home or path.parent, path) + (f" ({cure})" if cure else "")] += 1
        for below in folder.folders:
            if home or below.path in known or any(each.images for each in below.walk()):
                pending.append((below, home))
            elif others := sum(len(each.files) for each in below.walk()):
                counts[f"{below.name}/ (no image)"] += others
    return counts


def _strays(folder: Folder, layout: str | None, known: set[Path], above: set[Path], alone: Alone) -> Iterator[Stray]:
    if loose := folder.images:
        cures = "; ".join(_cures(loose)) or "put the files of each case into a folder of its own, by its name"
        yield Stray(folder.path, loose, _nearest(layout, loose), f"lies beside the folders of cases; {cures}")
    for child in folder.folders:
        if child.path in above:
            yield from _strays(child, layout, known, above, alone)
        elif child.path not in known:
            images = [path for below in child.walk() for path in below.images]
            if images or child.fault or not any(below.files for below in child.walk()):
                nearest = _nearest(layout, images)
                yield Stray(child.path, images, nearest, _reason(folder, child, images, nearest, alone))


def _reason(root: Folder, folder: Folder, images: list[Path], nearest: str, alone: Alone) -> str:
    """Why a folder is no case, and what would make it one."""
    prefixes = sorted({name.prefix for path in images if (name := image_name(path.name))})
    if folder.fault:
        return f"cannot be listed, {folder.fault}; look at its rights"
    if not images:
        return "the folder is empty; copy the case's files into it, or remove it"
    if cases := alone(folder):
        return f"another folder is {cases[0].patient} visit {cases[0].visit} too; remove one of the two, or rename it"
    if deeper := [below for below in folder.walk() if alone(below)]:
        cure = f"move them into {root.path}, or give data.root={deeper[0].path.parent}"
        return f"holds {len(deeper)} case{'s' * (len(deeper) > 1)}, a folder too deep; {cure}"
    if not prefixes and (cures := _cures(images)):
        return "; ".join(cures)
    if not nearest.startswith("BraTS"):
        return "is not named as the layout's folders are; rename it and its files, or list all cases in cases.csv"
    if not prefixes:
        return "no name ends in a modality, such as _t1.nii.gz; rename the files"
    if prefixes == [""]:
        return f"names do not say whose the files are; name them {folder.name}_t1.nii.gz and so on"
    if len(prefixes) > 1:
        return f"holds files of {prefixes[0]} and {prefixes[1]}; leave one set, or give each a folder of its name"
    if not folder.images:
        return f"the files are a folder too deep; move them up into {folder.name}"
    return f"its files are those of {prefixes[0]}; is it a copy? Give folder and files one name, or remove it"


def _nearest(layout: str | None, images: list[Path]) -> str:
    dashes = any((name := image_name(path.name)) and name.separator == "-" for path in images)
    return layout or ("BraTS 2023-2024" if dashes else "BraTS 2020-2021")


def _cures(images: Iterable[Path]) -> list[str]:
    """What makes NIfTI of them."""
    return sorted({cure for path in images if (cure := conversion(path.name))})


def _images_outside(folder: Folder, known: set[Path]) -> Iterator[tuple[Path, Path]]:
    """Each image file outside of known folders, with the place of its folder behind all links."""
    if folder.path in known:
        return
    if images := folder.images:
        place = folder.path.resolve()
        yield from ((path, place) for path in images)
    for below in folder.folders:
        yield from _images_outside(below, known)


def _resolved(paths: Iterable[Path]) -> set[Path]:
    """The paths without .. and links to folders, by which a table may lead to a file."""
    places: dict[Path, Path] = {}
    for path in paths:
        if path.parent not in places:
            places[path.parent] = path.parent.resolve()
    return {places[path.parent] / path.name for path in paths}


def _pattern(home: Path, path: Path) -> str:
    """A file's name without whose it is, the same for all cases: *_ADC.nii.gz, week-*/native/T1.nii.gz."""
    pairs = zip(f"{home.name}_", f"{path.stem}_", strict=False)
    shared = "".join(
        one for one, other in takewhile(lambda pair: pair[0] == pair[1] or {*pair} <= {*SEPARATORS}, pairs)
    )
    whole = max(shared.rfind(mark) for mark in SEPARATORS)
    inside = path.parent.relative_to(home)
    named = inside / f"*{path.name[whole:]}" if whole > 0 else home.name / inside / path.name
    return re.sub(r"\d{3,}(-\d+)?", "*", str(named))
