"""Cases that MONAI's, the Decathlon's or nnU-Net's `dataset.json` names."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from gliofed.shared.data.cases import Case, Found, Side
from gliofed.shared.data.folders import Folder
from gliofed.shared.data.names import MODALITIES, modality_name, stem
from gliofed.shared.data.tables import MANIFEST, bad_table, named_file, natural
from gliofed.shared.data.volume import DataError, Scan
from gliofed.shared.wording import quantity

DATALIST = "dataset.json"
WHICH = 'which modalities? Add "channel_names": {"0": "FLAIR", "1": "T1w"}'


def datalist(root: Folder, labels: str) -> Found:
    """Cases of `dataset.json`: lists `training`, `validation`, `test` of {"image": path or paths, "label": path}.

    A path alone is a file of one modality, of all as channels of a fourth axis (MSD Task01), or nnU-Net's name for
    X_0000.nii.gz and on, a file a channel. `channel_names` or `modality` names them; without it, the files' own ends
    do. An entry may have `patient` and `visit`; else its file's name is the patient. Training is declared where a list
    `validation` is there. Of `test`, entries without a label are left out. Where there are no lists, as nnU-Net v2
    writes it, the cases are those of `imagesTr/` and `labelsTr/`. Raises DataError: bad_table (names the entry),
    unreadable.
    """
    path = root.path / DATALIST
    if not os.path.lexists(path):
        return Found([], set())
    listing = _json(path)
    names = _channels(path, listing)
    cases: dict[tuple[str, str, str], Case] = {}
    lists = {side: listing.get(side) or [] for side in get_args(Side)}
    lists["test"] = _with_label(lists["test"])
    if not any(lists.values()):
        lists["training"] = _nnunet(root, path, listing)
    if not any(lists.values()):
        what = "has only test cases without labels, which are left out" if listing.get("test") else "names no cases"
        cure = f"add entries to its list `training` or `validation`, name the scans in {MANIFEST}, or remove the file"
        raise bad_table(path, f"{what}; {cure}")
    for side, entries in lists.items():
        if not isinstance(entries, list):
            raise bad_table(path, f"{side}: must be a list of entries with image and label")
        for number, entry in enumerate(entries):
            where = f"{side}[{number}]"
            if not isinstance(entry, dict) or not entry.get("image"):
                raise bad_table(path, f'{where}: must be {{"image": path, "label": path}}, not {str(entry)[:60]}')
            images = _listed(path, where, entry["image"], names)
            one = isinstance(entry["image"], str)
            patient, visit = _who(entry, [Path(entry["image"])] if one else [scan.path for scan in images.values()])
            mask = Scan(named_file(path, f"{where}.label", entry["label"])) if entry.get("label") else None
            declared = None if side == "training" and not listing.get("validation") else side
            if (side, patient, visit) in cases:
                raise bad_table(path, f'{where}: {patient} visit {visit} again; give entries "patient" and "visit"')
            cases[side, patient, visit] = Case(patient, visit, images, mask, None, labels, declared)
    without_masks = {root.path / "imagesTs", root.path / "labelsTs", *_test_files(root.path, listing)}
    return Found(sorted(cases.values(), key=lambda case: natural(case.visit)), without_masks)


def _with_label(entries: object) -> list[dict[str, Any]]:
    """The entries of a list `test` that can be measured; others, and what is none, are only known."""
    there = entries if isinstance(entries, list) else []
    return [entry for entry in there if isinstance(entry, dict) and isinstance(entry.get("label"), str)]


def _nnunet(root: Folder, path: Path, listing: dict[str, Any]) -> list[dict[str, str]]:
    """The entries that nnU-Net v2 leaves to the names of its files, in the form of v1."""
    ending, images, masks = str(listing.get("file_ending", ".nii.gz")), root.child("imagesTr"), root.child("labelsTr")
    if images.files and stem(f"X{ending}") is None:
        raise bad_table(path, f"file_ending={ending}: is not read; convert images and masks to .nii.gz")
    of_a_channel = (re.fullmatch(rf"(.+)_\d{{4}}{re.escape(ending)}", file) for file in images.files)
    files = sorted({f"{match[1]}{ending}" for match in of_a_channel if match})
    return [
        {"image": f"{images.name}/{file}"} | ({"label": f"{masks.name}/{file}"} if file in masks.files else {})
        for file in files
    ]


def _test_files(root: Path, listing: dict[str, Any]) -> Iterator[Path]:
    """The files of the list `test`, whose entries are paths or as those of `training`."""
    entries = listing.get("test")
    for entry in entries if isinstance(entries, list) else []:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            paths = value if isinstance(value, list) else [value]
            yield from (root / path for path in paths if isinstance(path, str) and os.path.isfile(root / path))


def _channels(path: Path, listing: dict[str, Any]) -> list[str]:
    """Modalities in the order of a datalist's channels; none where it does not name them."""
    given = listing.get("channel_names") or listing.get("modality") or []
    if isinstance(given, dict) and all(re.fullmatch(r"\d{1,4}", str(key)) for key in given):
        given = [given[key] for key in sorted(given, key=int)]
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise bad_table(path, 'channel_names: must be like {"0": "FLAIR", "1": "T1w"}')
    names = [modality_name(name) for name in given]
    if len(set(names)) < len(names):
        raise bad_table(path, f"channel_names: {', '.join(given)} name a modality twice; each is a channel of its own")
    return names


def _listed(path: Path, where: str, image: object, names: list[str]) -> dict[str, Scan]:
    """The images of a datalist's entry, by modality."""
    if isinstance(image, str) and not os.path.isfile(path.parent / image):
        by_channel = _channel_files(path.parent / image, names or [""])
        if by_channel and not names:
            raise bad_table(path, f"{where}.image: {WHICH}")
        if by_channel:
            return by_channel
    values = image if isinstance(image, list) else [image]
    files = [named_file(path, f"{where}.image", value) for value in values]
    if len(files) == 1 and len(names) > 1:
        return {name: Scan(files[0], channel, len(names)) for channel, name in enumerate(names)}
    ends = [modality_name(re.split(r"[-_]", _stem(file))[-1]) for file in files]
    if not names and len(set(ends) & set(MODALITIES.values())) < len(files):
        raise bad_table(path, f"{where}.image: {WHICH}")
    if names and len(names) != len(files):
        raise bad_table(
            path,
            f"{where}.image: {quantity(len(files), 'file')}, but channel_names has {len(names)}; give one a channel",
        )
    return {name: Scan(file) for name, file in zip(names or ends, files, strict=True)}


def _channel_files(file: Path, names: list[str]) -> dict[str, Scan]:
    """Those of nnU-Net's X_0000.nii.gz, X_0001.nii.gz, ... for X.nii.gz that are there, by modality."""
    name = _stem(file)
    files = [file.with_name(f"{name}_{number:04d}{file.name[len(name) :]}") for number in range(len(names))]
    return {name: Scan(file) for name, file in zip(names, files, strict=True) if os.path.isfile(file)}


def _who(entry: dict[str, Any], files: list[Path]) -> tuple[str, str]:
    """Patient and visit of a datalist's entry: said, or from its files' names without the modalities."""
    stems = {_stem(file) for file in files}
    if len(stems) > 1 or modality_name(re.split(r"[-_]", min(stems))[-1]) in MODALITIES.values():
        stems = {"".join(re.findall(r"^(.+)[-_][^-_]+$", stem)) for stem in stems}
    name = min(stems) if len(stems) == 1 and min(stems) else files[0].parent.name
    # Two visits of a patient of BraTS must not be two patients, one in training and one in validation.
    match = re.fullmatch(r"(BraTS-\w+-\d+)-(\d{3})", name)
    patient, visit = match.groups() if match else (name, "000")
    return str(entry.get("patient") or patient), str(entry.get("visit") or visit)


def _stem(path: Path) -> str:
    return stem(path.name) or path.name


def _json(path: Path) -> dict[str, Any]:
    try:
        listing = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(listing, ensure_ascii=False).encode()  # half a letter is JSON, but no name of a patient or a file
    except (ValueError, RecursionError) as error:
        raise DataError("unreadable", f"{path}: no JSON in UTF-8 ({error}); fix it, or remove it") from None
    except OSError as error:
        raise DataError("unreadable", f"{path}: {error.strerror}; look at the file and its rights") from None
    if not isinstance(listing, dict):
        raise bad_table(path, "must hold lists training and validation by name; fix it, or remove it")
    return listing
