"""What of a root is in no case: not understood, or known and not used. Each is named, so that no patient vanishes."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from gliofed.shared.data.cases import Case, Found
from gliofed.shared.data.folders import Folder
from gliofed.shared.data.names import MASK, SEPARATORS, ImageName, conversion, image_name
from gliofed.shared.data.releases import LAYOUTS
from gliofed.shared.wording import quantity

KIND = 3
"""Cases with the same name in their folders from which it is a kind of image, as native is, and nobody's."""
_SHOWN = 3
"""Most files that a sentence names."""

Visit = tuple[str, str]
"""Patient and visit."""
Alone = Callable[[Folder], list[Case]]
"""The cases that a folder would be if it were the only one."""


@dataclass(frozen=True)
class Stray:
    """A folder, or files in it, that no case has; it stays at the site, since names may be a patient's."""

    folder: Path
    files: list[Path]
    """Image files there and below; none where the folder is empty."""
    nearest: str
    """The layout that it is measured by: a key of LAYOUTS; empty where none is known."""
    reason: str
    """Why no case has them, and what would make them fit."""

    def __str__(self) -> str:
        names = [str(file.relative_to(self.folder)) for file in self.files[:_SHOWN]]
        more = f" and {len(self.files) - _SHOWN} more" if len(self.files) > _SHOWN else ""
        what = f"{', '.join(names)}{more}: " if names else ""
        nearest = LAYOUTS.get(self.nearest)
        form = f" (nearest is {self.nearest}: {nearest.form})" if names and nearest and nearest.form else ""
        return f"{self.folder}: {what}{self.reason}{form}"


def counted(strays: Collection[Stray]) -> str:
    """How many there are, without a name.

    >>> counted([Stray(Path("P"), [Path("P/a.mha")], "cases.csv", "no row")])
    '1 folder with 1 image file'
    """
    return f"{quantity(len(strays), 'folder')} with {quantity(sum(len(stray.files) for stray in strays), 'image file')}"


def not_understood(root: Folder, layout: str | None, found: Found, read: set[Path], alone: Alone) -> list[Stray]:
    """Name what no case has, and what only lies in a case's folder.

    These are the highest folders without a case in them or above, unless they hold other files only; loose images;
    images in the folder of a case that seem to be another's; and what could not be listed.
    """
    above = {parent for path in found.known for parent in path.parents}
    visits = {(case.patient, case.visit) for case in found.cases}
    strangers = _strangers(root, layout, found.known, read)
    return [*_strays(root, layout, found.known, above, visits, alone), *strangers, *_not_listed(root, layout)]


def not_in_table(root: Folder, table: str, read: set[Path], known: set[Path]) -> list[Stray]:
    """Name, together, the image files under `root` that a table does not: one finding, if there are any."""
    images = [path for folder in root.walk(known) if folder.path not in known for path in folder.images]
    places = _resolved({*images, *read, *known})
    named = {places[path] for path in read | known}
    left = [path for path in images if places[path] not in named]
    reason = "; ".join([f"{table} names no such file; add what belongs to a case, or ignore this", *_cures(left)])
    return [*([Stray(root.path, left, table, reason)] if left else []), *_not_listed(root, table)]


def not_used(root: Folder, read: set[Path], known: set[Path]) -> Counter[str]:
    """Count, by pattern of names, what is known and not read; and files in folders without any image, maybe none."""
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
            others = sum(len(each.files) for each in below.walk())
            if below.path in known or any(each.images for each in below.walk()):
                pending.append((below, home))
            elif others or (home and not any(each.fault for each in below.walk())):  # elsewhere: not understood
                counts[f"{below.name}/ (no image)"] += others
    return counts


def _strays(
    folder: Folder, layout: str | None, known: set[Path], above: set[Path], visits: set[Visit], alone: Alone
) -> Iterator[Stray]:
    if loose := folder.images:
        cures = "; ".join(_cures(loose)) or "put the files of each case into a folder of its own, by its name"
        yield Stray(folder.path, loose, _nearest(layout, loose), f"lies beside the folders of cases; {cures}")
    for child in folder.folders:
        if child.path in above:
            yield from _strays(child, layout, known, above, visits, alone)
        elif child.path not in known:
            images = [path for below in child.walk() for path in below.images]
            if images or not any(below.files or below.fault for below in child.walk()):
                nearest = _nearest(layout, images)
                yield Stray(child.path, images, nearest, _reason(folder, child, images, nearest, visits, alone))


def _strangers(root: Folder, layout: str | None, known: set[Path], read: set[Path]) -> Iterator[Stray]:
    """The images in cases' folders that seem to be another's, by their names or by that of a folder of their own."""
    found: dict[tuple[Path, str, str], list[Path]] = {}
    for home in (folder for folder in root.walk(known) if folder.path in known):
        images = {path for below in home.walk() for path in below.images}
        if not (others := sorted(images - read)):
            continue
        own = {part.lower() for part in home.path.relative_to(root.path).parts}
        own |= {name.prefix.lower() for path in images & read if (name := image_name(path.name)) and name.prefix}
        for path in others:
            if whose := _whose(home.path, path, own):
                # What is left of P1_native in the folder of P1 is the same for all cases, if it is a kind of image.
                before = max((len(name) for name in own if _begins(whose, name)), default=0)
                found.setdefault((home.path, whose, whose[before:].lower()), []).append(path)
    homes = Counter(kind for _, kind in {(place, kind) for place, _, kind in found})
    for (place, whose, kind), files in found.items():
        a_mask_alone = all(name.what == MASK for path in files if (name := _name_of(path)))
        if homes[kind] < KIND and not a_mask_alone:
            reason = (
                f"seem to be of {whose}, in the folder of {place.name}; move them into a folder {whose} beside it, or "
                f"begin their names with {place.name} if they are its further images"
            )
            folder = Path(os.path.commonpath([path.parent for path in files]))
            yield Stray(folder, files, _nearest(layout, files), "; ".join([reason, *_cures(files)]))


def _whose(home: Path, path: Path, own: set[str]) -> str:
    """The name of whoever else an image in the folder of a case may be of; empty where nothing tells of another.

    A folder without a digit whose files have no name is nobody's: raw/t1.nii.gz.
    """
    if (name := _name_of(path)) is None:
        return ""
    inside = path.relative_to(home).parts[:-1]
    if inside and inside[-1] == name.prefix and name.prefix.lower() not in own:
        return name.prefix
    whose = name.prefix or next((part for part in inside[:1] if re.search(r"\d", part)), "")
    return "" if any(_begins(whose, each) or _begins(each, whose) for each in own) else whose


def _name_of(path: Path) -> ImageName | None:
    """What the name of an image tells, in whatever format."""
    return image_name(path.name) or image_name(path.with_suffix(".nii").name)


def _begins(name: str, other: str) -> bool:
    """Whether a name is the other one, or begins with it: P1_native with P1, but not P10."""
    rest = name[len(other) :]
    return name.lower().startswith(other.lower()) and (not rest or rest[0] in SEPARATORS)


def _not_listed(root: Folder, nearest: str | None) -> list[Stray]:
    return [Stray(each.path, [], nearest or "", each.fault) for each in root.walk() if each.fault]


def _reason(root: Folder, folder: Folder, images: list[Path], nearest: str, visits: set[Visit], alone: Alone) -> str:
    """Why a folder is no case, and what would make it one."""
    prefixes = sorted({name.prefix for path in images if (name := image_name(path.name))})
    if not images:
        return "the folder is empty; copy the case's files into it, or remove it"
    there = {(case.patient, case.visit): below.path for below in folder.walk() for case in alone(below)}
    new = sorted(there.keys() - visits)
    if new and there[new[0]] != folder.path:
        cure = f"move them into {root.path}, or give data.root={there[new[0]].parent}"
        return f"holds {quantity(len(new), 'case')}, a folder too deep; {cure}"
    if there and not new:
        patient, visit = min(there)
        return f"another folder is {patient} visit {visit} too; remove one of the two, or rename it"
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


def _resolved(paths: set[Path]) -> dict[Path, Path]:
    """Each path without .. and links to folders, by which a table may lead to a file."""
    places = {folder: folder.resolve() for folder in {path.parent for path in paths}}
    return {path: places[path.parent] / path.name for path in paths}


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
