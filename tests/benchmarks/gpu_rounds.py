"""What surrounds steps on a GPU: the data path, a federated round, and the private step."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from gliofed.client.round.training import pick_workers, train_one_round
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, model_of
from gliofed.simulation.phantom import PhantomConfig, write_phantoms
from gliofed.simulation.simulate import simulate
from tests.benchmarks.cache import usual_run
from tests.benchmarks.gpu_steps import Cells, Scale
from tests.benchmarks.measure import take_turns
from tests.benchmarks.privacy import STEPS, SUBJECTS, both_steps
from tests.benchmarks.subjects import Sizes, of_preset
from tests.found_cohort import found_cohort
from tests.small_run import as_given

PATIENTS = 3


def data_path(scale: Scale, device: torch.device) -> Iterator[Cells]:
    """Steps of unet on patches that are cut and changed meanwhile, beside steps on one batch that is there already."""
    run, size, steps = usual_run(), min(scale.volume, 96), 4 * scale.steps
    run = replace(run, data=replace(run.data, patch=(size,) * 3, validation=0))
    run = replace(run, model=replace(run.model, preset=scale.preset))
    workers, task = pick_workers(None, device), TASKS[run.task]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "scans")
        write_phantoms(PhantomConfig(patients=PATIENTS, resolution=scale.resolution), root, 0)
        site = SiteConfig(name="here", root=str(root), labels="brats2020", work=str(Path(folder, "work")))
        source = Source(found_cohort(site, run.data, "visits").train, run.data, run.train, "visits", (0, "here", 1))
        with closing(batches(source, 1, device)) as drawn:
            there = next(drawn)
        model = model_of(run).to(device)

        def draw() -> None:
            with closing(batches(source, steps, device, workers)) as drawn:
                for _ in drawn:
                    pass

        def train() -> None:
            with closing(batches(source, steps, device, workers)) as drawn:
                train_one_round(model, drawn, task, run.train, steps, device)

        on_one = partial(train_one_round, model, [there] * steps, task, run.train, steps, device)
        works = {"steps on one batch": on_one, "batches alone": draw, "steps on drawn batches": train}
        figures = take_turns(works, scale.repeats, device)
        least = figures["steps on one batch"].time
        for name, each in figures.items():
            if each.time is None or least is None:
                yield name, f"{size}^3", str(workers), each.failed or "-", "-"
            else:
                yield name, f"{size}^3", str(workers), f"{each.time / steps * 1e3:.1f}", f"{each.time / least:.2f}"


def one_round(scale: Scale, device: torch.device) -> Iterator[Cells]:
    """A whole simulation of one round: three sites, phantoms at 2 mm, training, fold and evaluation."""
    size = min(scale.volume, 64)
    words = ["model=unet", f"model.preset={scale.preset}", "data=phantom", f"data.patch=[{size},{size},{size}]"]
    words += [f"data.resolution={max(2.0, scale.resolution)}", "data.patients=4", "sites=3", "rounds=1"]
    words += [f"train.steps={4 * scale.steps}", f"device={device.type}", "report.page=false", "report.plots=false"]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        result = simulate(as_given(*words, f"out={folder}/run"))
        yield "unet", scale.preset, str(4 * scale.steps), result.status, f"{time.perf_counter() - begun:.1f}"


def private_steps(scale: Scale, device: torch.device) -> Iterator[Cells]:
    """Steps with privacy=dp_sgd beside those without, on the same eight samples: time and memory."""
    sizes = Sizes(min(scale.volume, 96), min(scale.series, 64), 8)
    for subject in of_preset(scale.preset, sizes):
        if subject.name not in SUBJECTS[:3] + SUBJECTS[-1:]:
            continue
        figures = take_turns(both_steps(subject, device), scale.repeats, device)
        plain, private = figures[subject.name], figures[f"{subject.name}, private"]
        if plain.time is None or private.time is None:
            yield subject.name, plain.failed or "-", private.failed or "-", "-", "-"
            continue
        memory = f"{private.memory / plain.memory:.2f}" if plain.memory and private.memory else "-"
        milliseconds = (f"{each.time / STEPS * 1e3:.1f}" for each in (plain, private) if each.time is not None)
        yield subject.name, *milliseconds, f"{private.time / plain.time:.2f}", memory
