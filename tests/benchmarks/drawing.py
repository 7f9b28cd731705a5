"""Training steps with augment=usual beside those without changes: what drawing and changing samples costs a step."""

import argparse
import math
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from gliofed.client.round.training import pick_workers, train_one_round
from gliofed.shared.config import AugmentConfig
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, model_of
from gliofed.simulation.phantom import PhantomConfig, write_phantoms
from tests.benchmarks.cache import Took, timed, usual_run
from tests.found_cohort import found_cohort

STEPS = 8
"""Of a measurement: a change comes to three patches in ten."""
ASKED = 1.15
"""At most, of the time without changes."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print and return milliseconds a step of unet with and without changes, on two patches of four modalities.

    Both take turns, and the least counts: others only ever add.
    """
    torch.set_num_threads(arguments.threads)
    workers, run, size = pick_workers(None, arguments.device), usual_run(), arguments.volume
    task = TASKS[run.task]
    run = replace(run, data=replace(run.data, patch=(size,) * 3, validation=0))
    figures: dict[str, Any] = {"threads": arguments.threads, "workers": workers, "patch": size, "asked": ASKED}
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(
            PhantomConfig(patients=2, resolution=1.0 if size > 64 else 2.0), root := Path(folder, "scans"), 0
        )
        site = SiteConfig(name="here", root=str(root), labels="brats2020", work=str(Path(folder, "work")))
        patients = found_cohort(site, run.data, "visits").train
        for preset in arguments.presets:
            model = model_of(replace(run, model=replace(run.model, preset=preset)))

            def steps(augment: AugmentConfig, model: torch.nn.Module = model) -> Callable[[], object]:
                train = replace(run.train, augment=augment)
                source = Source(patients, run.data, train, "visits", (0, "here", 1))

                def round() -> object:
                    with closing(batches(source, STEPS, arguments.device, workers)) as drawn:
                        return train_one_round(model, drawn, task, train, STEPS, arguments.device)

                return round

            turns = {"none": steps(AugmentConfig()), "usual": steps(run.train.augment)}
            took = dict.fromkeys(turns, Took(math.inf, math.inf))
            for turn, (name, work) in product(range(arguments.repeats + 1), turns.items()):
                if turn:  # the first warms up
                    again = timed(work, STEPS)[1]
                    took[name] = Took(min(took[name].wall, again.wall), min(took[name].cpu, again.cpu))
                else:
                    work()
            none, usual = took.values()
            took["ratio"] = Took(usual.wall / none.wall, usual.cpu / none.cpu)
            figures[preset] = {name: asdict(each) for name, each in took.items()}
            print(
                f"A training step of unet at {preset}, patches of {size}^3, in ms (asked of the ratio: at most {ASKED})"
            )
            print(f"  {'augment':20} {'wall':>9} {'processor':>9}")
            for name, each in took.items():
                print(f"  {name:20} {each.wall:9.2f} {each.cpu:9.2f}")
    return figures
