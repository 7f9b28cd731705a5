"""Rename and turn files of real cases, and count what the check finds or reads: for whoever has real cases.

    python tests/planted_in_real_files.py FOLDER SCHEME

Copies one case at a time into a folder of its own; prints found of planted, and every miss. docs/data.md has a table.
"""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from planted import IMAGES, edit, of

from gliofed.client.doctor.examine import examine
from gliofed.client.doctor.judgement import judge
from gliofed.shared.data.layouts import take_inventory
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import TASKS


def turned(array: np.ndarray, affine: np.ndarray, degrees: float = 5) -> tuple[Any, Any]:
    """The same voxels, told to lie turned about the centre of the volume (about the axis from foot to head)."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    centre = affine @ [*(np.array(array.shape) - 1) / 2, 1]
    back, forth = np.eye(4), np.eye(4)
    back[:3, 3], forth[:3, 3] = -centre[:3], centre[:3]
    return array, forth @ turn @ back @ affine


def rename(change: Callable[[str], str], folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        path.rename(folder / change(path.name))


def move(name: str, folder: Path) -> None:
    folder.rename(folder.parent / name)


def drop_modality(name: str) -> str:
    return f"scan{sum(map(ord, name))}.nii.gz"


PLANTS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    **{f"header of {name} turned by 5 degrees": lambda f, n=name: edit(of(f, n), turned) for name in (*IMAGES, "seg")},
    "folder renamed": partial(move, "scan of 3 May"),
    "a letter of the files' prefix lost": partial(rename, lambda name: name[1:]),
    "prefix of the files lost": partial(rename, lambda name: name.rsplit("_", 1)[1]),
    "in capitals": partial(rename, lambda name: name.upper()),
    "t1gd, t2W and segmentation": partial(
        rename, lambda name: name.replace("_t1ce", "_t1gd").replace("_t2", "_t2W").replace("_seg", "_segmentation")
    ),
    "files named without modality": partial(rename, drop_modality),
    "a modality that nobody knows": partial(rename, lambda name: name.replace("_flair", "_tirm")),
}


def seen(root: Path, scheme: str, beside: str) -> str:
    """What the check says of the case that was changed, beside one that was not."""
    inventory = take_inventory(root, scheme)
    cases = [case for case in inventory.cases if case.patient != beside]
    reports = judge(cases, examine(cases, CheckConfig(), 1, draw=False), CheckConfig(), IMAGES, TASKS["segmentation"])
    codes = {finding.code for report in reports for finding in report.findings}
    codes |= {"not_understood"} if inventory.not_understood else set()
    return ("" if cases else "no case, ") + (" ".join(sorted(codes)) or "ok")


def main(root: str, scheme: str) -> None:
    """Print what the check says of each case under each change."""
    said: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir())
    for case, beside in zip(folders, [*folders[1:], folders[0]], strict=True):
        for kind, plant in PLANTS.items():
            with TemporaryDirectory() as folder:
                shutil.copytree(beside, Path(folder) / beside.name)
                plant(Path(shutil.copytree(case, Path(folder) / case.name)))
                said[kind][seen(Path(folder), scheme, beside.name)] += 1
    for kind, answers in said.items():
        print(f"{kind:40} " + "; ".join(f"{count} {answer}" for answer, count in answers.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
