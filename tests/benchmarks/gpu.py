"""make bench ARGS=gpu: all there is to measure on a GPU, in eight minutes at most, into docs/benchmarks.md."""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from tests.benchmarks.gpu_recipes import ingredients
from tests.benchmarks.gpu_rounds import data_path, one_round, private_steps
from tests.benchmarks.gpu_steps import FULL, TINY, Cells, Scale, correctness, every_step
from tests.benchmarks.measure import ran_out
from tests.benchmarks.pages import write_between

BUDGET = 480.0
"""Seconds of all sections together, the start of Python and PyTorch not counted."""
PAGE = Path("docs/benchmarks.md")
STEP_HEAD = ("ms", "GB", "GB worked out", "TFLOP/s", "of the peak")


class OutOfTime(BaseException):  # no error, as KeyboardInterrupt; a simulation would take one for a site's
    """A section took its time, or all time is over."""


@dataclass(frozen=True)
class Section:
    """One table."""

    title: str
    head: Cells
    measure: Callable[[Scale, torch.device], Iterator[Cells]]
    seconds: float
    """At most; what one does not need the next may have, but none takes more than its own."""


SECTIONS = {
    "correctness": Section(
        "Gradients, compared with those of a CPU in double precision",
        ("model", "precision", "relative error", "bound", "within it"),
        correctness,
        60,
    ),
    "steps": Section("A training step", ("model", "precision", *STEP_HEAD), every_step, 100),
    "private": Section("A private step", ("model", "ms without privacy", "ms", "time", "memory"), private_steps, 60),
    "data": Section(
        "Steps of `unet` on drawn batches", ("what", "patch", "workers", "ms a step", "ratio"), data_path, 80
    ),
    "round": Section(
        "A simulation of one round, three sites", ("model", "preset", "steps", "status", "s"), one_round, 60
    ),
    "ingredients": Section("One thing changed at a time", ("model", "recipe", *STEP_HEAD), ingredients, 200),
}
"""In this order: what matters most first, since time may run out."""


@dataclass
class Outcome:
    """What came of the sections."""

    rows: dict[str, list[Cells]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """Sections that did not end, each with how far it came."""
    failed: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether gradients were compared to the end, and all are within their bounds."""
        checked = self.rows.get("correctness", [])
        ended = not any(each.startswith("correctness") for each in self.left_out + self.failed)
        return ended and bool(checked) and all(row[-1] == "yes" for row in checked)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTime after so many seconds, in whatever runs then in the main thread."""

    def over(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(sections: dict[str, Section], scale: Scale, device: torch.device, budget: float) -> Outcome:
    """Take each section in turn; one that takes too long, or fails, keeps its rows so far, and the next one begins."""
    outcome, deadline = Outcome(), time.monotonic() + budget
    for name, section in sections.items():
        rows = outcome.rows[name] = []
        try:
            with at_most(min(section.seconds, deadline - time.monotonic())):
                for cells in section.measure(scale, device):
                    rows.append(cells)
                    print(f"{name}: {', '.join(cells)}", flush=True)
        except OutOfTime:
            outcome.left_out.append(f"{name} after {len(rows)} rows")
        except Exception as error:  # time on a GPU is dear: the others still run
            traceback.print_exc()
            kind = "out of memory" if ran_out(error) else type(error).__name__
            outcome.failed.append(f"{name} after {len(rows)} rows ({kind})")
    return outcome


def page_text(outcome: Outcome, machine: str) -> str:
    """Tables as Markdown, with the machine, the date and what is missing."""
    parts = [f"{machine}, {datetime.now(UTC):%Y-%m-%d}."]
    for words, names in (("Left out, since time was over", outcome.left_out), ("Failed", outcome.failed)):
        if names:
            parts.append(f"{words}: {', '.join(names)}.")
    for name, rows in outcome.rows.items():
        if rows:
            lines = [SECTIONS[name].head, ("---",) * len(SECTIONS[name].head), *rows]
            parts.append(f"{SECTIONS[name].title}:")
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(parts)


def machine_of(device: torch.device) -> str:
    """The device, and the versions that its figures hold for."""
    if device.type != "cuda":
        return f"No GPU: a CPU, to see that all of it runs; torch {torch.__version__}"
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"{torch.cuda.get_device_name(device)} with {memory:.0f} GB, {versions}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What only this benchmark has."""
    parser.add_argument("--tiny", action="store_true", help="gpu in small, on a CPU too, to see that it runs")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"gpu writes its tables there (default: {PAGE})")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, write the page, and return all rows. Ends with status 2 without a GPU, 1 if a gradient is off."""
    device, scale = arguments.device, TINY if arguments.tiny else FULL
    if device.type != "cuda" and not arguments.tiny:
        print(
            "make bench: gpu: PyTorch finds no CUDA device; --tiny runs all of it on a CPU, in small", file=sys.stderr
        )
        raise SystemExit(2)
    outcome = run(SECTIONS, scale, device, BUDGET)
    if not arguments.tiny or arguments.page != PAGE:
        write_between(arguments.page, "gpu", page_text(outcome, machine_of(device)))
    for words, names in (("left out", outcome.left_out), ("failed", outcome.failed)):
        if names:
            print(f"{words}: {', '.join(names)}")
    if not outcome.right or outcome.failed:
        raise SystemExit(1)
    return {"rows": outcome.rows, "left_out": outcome.left_out}
