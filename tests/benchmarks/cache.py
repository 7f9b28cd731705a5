"""A second epoch from the cache against MONAI's chain from .nii.gz, and the memory that a hundred cached cases take."""

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_module
from monai import transforms
from omegaconf import OmegaConf

from gliofed.shared.config import AugmentConfig, DataConfig, RunConfig
from gliofed.shared.data.cache import open_entry
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Source, batches, of_one
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.phantom import PhantomConfig, write_phantoms
from gliofed.simulation.settings import parse_settings
from tests.benchmarks.measure import resident
from tests.found_cohort import found_cohort

CPU = torch.device("cpu")
PHANTOMS = 3
EPOCHS = 3
PATCHES = 10
"""Of each patient in one of our epochs: one patch is over in milliseconds."""
ENTRIES = 100
ASKED = {"patch_ms": 15.0, "ratio": 50.0, "anonymous_mb": 1000.0}
"""At most, at least, at most."""


@dataclass(frozen=True)
class Took:
    """Milliseconds a case, on one thread."""

    wall: float
    cpu: float
    """Of the processor: what is left of `wall` on a machine that does nothing else, but for waiting for the disk."""


def measure() -> dict[str, Any]:
    """Print a table, and return its figures: milliseconds a case on one thread, and MB."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, run = Path(folder, "scans"), usual_run()
        write_phantoms(PhantomConfig(patients=PHANTOMS, resolution=1.0), root, 0)
        site = SiteConfig(name="here", root=str(root), labels="brats2020", work=str(Path(folder, "work")))
        patients, first = timed(lambda: found_cohort(site, replace(run.data, validation=0), "visits").train, PHANTOMS)
        with multiprocessing.get_context("spawn").Pool(1) as fresh:  # this process has held whole scans
            bare, held, size = fresh.apply(anonymous_memory, [[patient.entries[0] for patient in patients], run])
        off = replace(run, train=replace(run.train, augment=AugmentConfig()))
        epochs = {"chain": (monai_chain(run.data, root), 1), "patch": (second_epoch(patients, off), PATCHES)}
        took = {name: Took(math.inf, math.inf) for name in epochs}
        for _, (name, (epoch, patches)) in product(range(EPOCHS), epochs.items()):
            again = timed(epoch, PHANTOMS * patches)[1]
            took[name] = Took(min(took[name].wall, again.wall), min(took[name].cpu, again.cpu))  # others only ever add
        changed = {
            name: timed(second_epoch(patients, one), PHANTOMS * PATCHES)[1] for name, one in augmented(run).items()
        }
    torch.set_num_threads(threads)
    ratio = Took(took["chain"].wall / took["patch"].wall, took["chain"].cpu / took["patch"].cpu)
    rows = {
        "MONAI's chain from .nii.gz": took["chain"],
        "preparing, once": first,
        "from the cache (asked: at most 15)": took["patch"],
        "chain / cache (asked: at least 50)": ratio,
        **{f"from the cache, {name}": value for name, value in changed.items()},
    }
    print_table(rows, bare, held, size)
    times = {name: asdict(value) for name, value in {"prepare": first, **took}.items()}
    return {
        "milliseconds": times,
        "augmented_milliseconds": {name: asdict(value) for name, value in changed.items()},
        "ratio": asdict(ratio),
        "anonymous_mb": held,
        "libraries_mb": bare,
        "entry_mb": size,
        "asked": ASKED,
    }


def usual_run() -> RunConfig:
    """What `gliofed-simulate data=folder augment=usual` takes: four modalities, three regions, 1 mm, 96^3 voxels."""
    words = ["data=folder", "data.root=.", "data.labels=brats2020", "model=unet", "augment=usual"]
    with initialize_config_module("gliofed.configs", version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("simulation", words), resolve=True)
    return parse_settings(values)[0]


def monai_chain(data: DataConfig, root: Path) -> Callable[[], None]:
    """Return an epoch: each case from its .nii.gz to a patch, as MONAI's users write it, without its regions."""
    pair = ("image", "mask")
    chain = transforms.Compose(
        [
            transforms.LoadImaged(pair),
            transforms.EnsureChannelFirstd(pair),
            transforms.Orientationd(pair, axcodes="RAS", labels=None),
            transforms.Spacingd(pair, pixdim=(1.0, 1.0, 1.0), mode=("bilinear", "nearest")),
            transforms.CropForegroundd(pair, source_key="image", allow_smaller=True),
            transforms.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            transforms.RandCropByPosNegLabeld(pair, "mask", data.patch, pos=0.7, neg=0.3, num_samples=1),
        ]
    ).set_random_state(0)
    cases = [
        {
            "image": [str(folder / f"{folder.name}_{modality}.nii.gz") for modality in data.modalities],
            "mask": str(folder / f"{folder.name}_seg.nii.gz"),
        }
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    ]

    def epoch() -> None:
        for case in cases:
            chain(case)

    return epoch


def second_epoch(patients: list[Patient], run: RunConfig) -> Callable[[], None]:
    """Return an epoch: PATCHES patches of each patient from the cache, whose files the machine has in memory."""
    rng = np.random.default_rng(0)

    def epoch() -> None:
        for patient in patients * PATCHES:
            of_one(patient, run.data, run.train, rng, "visits", 1).to(
                CPU
            )  # dropped, as training does: memory is used again

    return epoch


def augmented(run: RunConfig) -> dict[str, RunConfig]:
    """Each change of `augment=usual` by itself and always, and all as they come."""
    settings = asdict(run.train.augment)
    single = {
        name: AugmentConfig(**({"chance": 1, name: 1.0 if name == "flip" else settings[name]}))
        for name in settings
        if name != "chance" and settings[name]
    }
    configs = {**single, "usual": run.train.augment}
    return {name: replace(run, train=replace(run.train, augment=config)) for name, config in configs.items()}


def anonymous_memory(entries: Sequence[Path], run: RunConfig) -> tuple[float, float, float]:
    """MB of RssAnon before, and at its most while patches of ENTRIES entries are drawn, all open; MB of an entry."""
    bare = resident("RssAnon")
    with tempfile.TemporaryDirectory(dir=entries[0].parent) as folder:
        patients = []
        for number in range(ENTRIES):
            entry = Path(folder, str(number))
            entry.mkdir()
            for file in entries[number % len(entries)].iterdir():
                os.link(file, entry / file.name)
            patients.append(Patient(str(number), ("000",), (entry,)))
        opened = [open_entry(patient.entries[0]) for patient in patients]
        draws = batches(Source(patients, run.data, run.train, "visits", (0,)), ENTRIES, CPU)
        most = max(resident("RssAnon") for _ in draws)
        size = sum(entry.image.nbytes + entry.mask.nbytes for entry in opened) / len(opened) / 2**20
    return bare, most, size


def print_table(rows: dict[str, Took], bare: float, held: float, size: float) -> None:
    """The figures, with what was asked."""
    print(f"Cache: {PHANTOMS} phantoms of 240 x 240 x 155, a patch of 96^3 a case, in ms on one thread")
    print(f"  {'':44} {'wall':>9} {'processor':>9}")
    for name, took in rows.items():
        print(f"  {name:44} {took.wall:9.1f} {took.cpu:9.1f}")
    print(
        f"  RssAnon with {ENTRIES} cases open (asked: below 1000 MB): {held:.0f} MB, of which libraries {bare:.0f} MB;"
    )
    print(f"  on disk an entry takes {size:.0f} MB")


def timed(work: Callable[[], Any], cases: int) -> tuple[Any, Took]:
    """What `work` gives, and what it took a case."""
    wall, cpu = time.perf_counter(), time.process_time()
    given = work()
    return given, Took((time.perf_counter() - wall) * 1e3 / cases, (time.process_time() - cpu) * 1e3 / cases)
