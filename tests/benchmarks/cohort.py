"""What it takes to find a cohort of the size of FeTS 2022, to deal it to sites, and to look for changes."""

import tempfile
import time
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np

from gliofed.client.doctor.findings import Facts, FileState, Grid, ImageFacts
from gliofed.client.doctor.inspection import Inspection, scans_of
from gliofed.client.doctor.manifest import admit, freeze
from gliofed.shared.data.cases import Case
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.partition import deal, number_of_sites
from gliofed.simulation.profiles import profile
from gliofed.simulation.settings import parse_settings
from tests.small_run import as_given

PATIENTS = 1251
PARTITIONS = ("fets2022_1", "by_scanner", "by_size")
"""The first opens no file, the second headers, the third masks."""


def measure() -> dict[str, float]:
    """Wall seconds a partition, at first and once its files were measured; files are tiny, so it is all overhead."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        write(root)
        for partition in PARTITIONS:
            for when in ("at first", "again"):
                start = time.perf_counter()
                patients = profile(
                    find_cases(root, "brats2020"), partition, root, Path(folder, "profiles.json"), lambda *_: None
                )
                parts = deal(partition, 0.5, patients, number_of_sites(partition, None), 0)
                seconds[f"{partition} {when}"] = round(time.perf_counter() - start, 2)
                assert sum(map(len, parts)) == PATIENTS
                if partition == "fets2022_1":
                    seconds[f"manifests of {len(parts)} sites {when}"] = admitted(root, Path(folder, "work"), parts)
    return seconds


def admitted(root: Path, work: Path, parts: list[list[str]]) -> float:
    """Wall seconds in which every site compares its files with its manifest, written before, and judges its cases."""
    run = parse_settings(as_given("data=folder", "data.root=x", "data.labels=brats2020", "model=unet"))[0]
    sites = [
        SiteConfig(name=f"s{n}", root=str(root), labels="brats2020", work=str(work / f"s{n}"), patients=tuple(part))
        for n, part in enumerate(parts)
    ]
    cases = {case.patient: case for case in find_cases(root, "brats2020")}
    for site in sites:
        if not site.folder.manifest.exists():
            mine = [cases[name] for name in site.patients or ()]
            freeze(site, mine, [Inspection(facts(case)) for case in mine])  # volumes of 4 x 4 x 4 would not pass
    start = time.perf_counter()
    found = sum(len(admit(site, run.data, "segmentation").cases) for site in sites)
    assert found == PATIENTS
    return round(time.perf_counter() - start, 2)


def facts(case: Case) -> Facts:
    """As a check would find them."""
    grid = Grid((240, 240, 155), (1.0, 1.0, 1.0), tuple(tuple(row) for row in np.eye(4).tolist()))
    names = scans_of(case)
    images = {name: ImageFacts(f"{case.patient} {name}", 500.0, 900.0, 1500.0, 0.8) for name in case.images}
    return Facts(states(case), [], dict.fromkeys(names, grid), images)


def states(case: Case) -> list[FileState]:
    assert case.mask is not None
    paths = [scan.path for scan in (*case.images.values(), case.mask)]
    return [
        FileState(path, state.st_size, state.st_mtime_ns, sha256(path.read_bytes()).hexdigest())
        for path in paths
        for state in [path.stat()]
    ]


def write(root: Path) -> None:
    """BraTS 2020's layout, with volumes of 4 x 4 x 4; two scanners."""
    volumes = []
    for descrip in (b"one", b"two"):
        image = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
        image.header["descrip"] = descrip
        nib.save(image, root.with_suffix(".nii.gz"))
        volumes.append(root.with_suffix(".nii.gz").read_bytes())
    for number in range(PATIENTS):
        name = f"BraTS20_Training_{number:04d}"
        (root / name).mkdir(parents=True)
        for kind in ("flair", "t1", "t1ce", "t2", "seg"):
            (root / name / f"{name}_{kind}.nii.gz").write_bytes(volumes[number % 2])
