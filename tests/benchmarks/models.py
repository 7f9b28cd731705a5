"""Training steps of our models, beside MONAI's at equal widths and the published CLSTM-UNet3D: time, memory, FLOPs."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from gliofed.shared.config import PRESETS
from tests.benchmarks.measure import Figures, ran_out, take_turns
from tests.benchmarks.subjects import REQUIREMENT, Sizes, Subject, of_preset, requirement

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}
ASKED = {"time": 0.5, "memory": 0.7}
"""At most these, of the published design."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """How a step is run."""

    device: torch.device
    precision: str = "fp32"
    memory_format: str = "contiguous"
    compiled: bool = False
    checkpointing: bool = False

    def __str__(self) -> str:
        options = [("compiled", self.compiled), ("checkpointing", self.checkpointing)]
        return ", ".join([self.precision, self.memory_format, *(name for name, on in options if on)])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the axes; each list is separated by commas."""
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda" if gpu else "cpu"))
    parser.add_argument("--presets", type=_choice(PRESETS), default=list(PRESETS) if gpu else ["demo", "tiny"])
    parser.add_argument("--models", type=lambda text: text.split(","), help="names, or how they begin (default: all)")
    parser.add_argument("--precision", type=_choice(PRECISIONS), default=["fp32"])
    parser.add_argument("--memory-format", type=_choice(FORMATS), default=["contiguous"])
    parser.add_argument("--compile", action="store_true", help="with torch.compile too")
    parser.add_argument("--checkpointing", action="store_true", help="with activation checkpointing too")
    parser.add_argument("--batch", type=positive, default=2)
    parser.add_argument("--volume", type=positive, default=128 if gpu else 32, help="voxels a side, of a volume")
    parser.add_argument("--series", type=positive, default=96 if gpu else 32, help="voxels a side, of a series' frame")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="on a CPU (default: all)")
    parser.add_argument("--repeats", type=positive, default=10 if gpu else 3)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


def _choice(known: dict[str, Any]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]}: unknown; known are {', '.join(known)}")
        return names

    return read


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print a table for each setting and preset, and return the rows, and what is required of the CLSTM-UNet3D."""
    _check_names(arguments)
    torch.set_num_threads(arguments.threads)
    sizes = Sizes(arguments.volume, arguments.series, arguments.batch)
    rows: list[Row] = []
    for setting, preset in product(_settings(arguments), arguments.presets):
        subjects = [s for s in of_preset(preset, sizes) if _wanted(s.name, arguments.models)]
        if subjects:
            found = measure_subjects(subjects, setting, arguments.repeats)
            print_table(f"A training step at {preset}, {setting}", found)
            rows += [{"preset": preset, **row} for row in found]
    required = None
    if _wanted(REQUIREMENT, arguments.models):
        [published, required] = measure_subjects(requirement(), Setting(arguments.device), arguments.repeats)
        asked = ", ".join(f"{name} at most {limit}" for name, limit in ASKED.items())
        print_table(f"{REQUIREMENT} against the published design (asked: {asked})", [published, required])
        totals = [row["megabytes"] + row["held_megabytes"] for row in (required, published) if row["megabytes"]]
        with_state = totals[0] / totals[1] if len(totals) == 2 else None
        print(f"  memory with weights and the optimiser's state: {with_state and round(with_state, 2)}")
        required = {"asked": ASKED, "memory_ratio_with_state": with_state, **required}
    return {"threads": arguments.threads, "steps": rows, "required": required}


def _check_names(arguments: argparse.Namespace) -> None:
    known = [subject.name for subject in of_preset("demo", Sizes(8, 8, 1))] + [REQUIREMENT]
    for model in arguments.models or []:
        if not any(name.startswith(model) for name in known):
            raise SystemExit(f"make bench: --models {model}: no name begins so; known are {', '.join(known)}")


def _settings(arguments: argparse.Namespace) -> Iterator[Setting]:
    axes = (
        arguments.precision,
        arguments.memory_format,
        (False, True)[: 1 + arguments.compile],
        (False, True)[: 1 + arguments.checkpointing],
    )
    return (Setting(arguments.device, *axis) for axis in product(*axes))


def _wanted(name: str, models: list[str] | None) -> bool:
    return models is None or any(name.startswith(model) for model in models)


def measure_subjects(subjects: list[Subject], setting: Setting, repeats: int) -> list[Row]:
    """Measure all in turn."""
    steps, figures = {}, {}
    for subject in subjects:
        try:
            steps[subject.name] = training_step(subject, setting)
        except RuntimeError as error:
            if not ran_out(error):
                raise
            figures[subject.name] = Figures(failed="out of memory")
    figures |= take_turns(steps, repeats, setting.device)
    return [_row(subject, figures, setting) for subject in subjects]


def training_step(subject: Subject, setting: Setting) -> Callable[[], None]:
    """Return a step as the product's: forward, loss, backward, AdamW."""
    device, dtype = setting.device, PRECISIONS[setting.precision]
    torch.manual_seed(0)
    model = subject.build().to(device=device, memory_format=FORMATS[setting.memory_format]).train()
    image, target = _batch(subject, device)
    if setting.checkpointing:
        checkpoint_levels(model)
    if setting.compiled:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = model(image)
        scaler.scale(subject.loss(logits, target)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()  # at the end, so that the gradients count as this step's memory

    return step


def _batch(subject: Subject, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.randn(subject.image, device=device, requires_grad=subject.inner)
    return image, (torch.rand(subject.target, device=device) < 0.1).float()


def checkpoint_levels(module: nn.Module) -> None:
    """Keep no activations inside the members of each outermost ModuleList, which are a model's levels."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for level in child:
                level.forward = partial(checkpoint, level.forward, use_reentrant=False)
        else:
            checkpoint_levels(child)


def count_flops(subject: Subject) -> float:
    """GFLOP of a forward and backward pass, counted on shapes alone."""
    with torch.device("meta"):
        model, (image, target) = subject.build().train(), _batch(subject, torch.device("meta"))
    with FlopCounterMode(display=False) as counter:
        subject.loss(model(image), target).backward()
    return counter.get_total_flops() / 1e9


def _row(subject: Subject, figures: dict[str, Figures], setting: Setting) -> Row:
    own, gflop = figures[subject.name], count_flops(subject)
    other = figures.get(subject.against or "", Figures())
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in subject.build().parameters())
    return {
        "name": subject.name,
        "setting": str(setting),
        "seconds": own.time,
        "megabytes": own.memory,
        "held_megabytes": 12 * parameters / 2**20,  # weights and the two moments of AdamW, fp32, between steps
        "gflop": gflop,
        "gflop_per_second": gflop / own.time if own.time else None,
        "against": subject.against,
        "time_ratio": own.time / other.time if own.time and other.time else None,
        "memory_ratio": own.memory / other.memory if own.memory and other.memory else None,
        "failed": own.failed,
        "repeats": own.seconds,
    }


def print_table(title: str, rows: list[Row]) -> None:
    """One line a subject; the ratios are to the subject named last."""
    print(title)
    print(f"  {'':30} {'s':>8} {'MB':>8} {'GFLOP':>9} {'GFLOP/s':>8} {'time':>6} {'memory':>6}")
    columns = {"seconds": "8.3f", "megabytes": "8.0f", "gflop": "9.2f", "gflop_per_second": "8.1f"}
    columns |= {"time_ratio": "6.2f", "memory_ratio": "6.2f"}
    for row in rows:
        cells = [
            f"{'-':>{form.split('.')[0]}}" if row[name] is None else f"{row[name]:{form}}"
            for name, form in columns.items()
        ]
        print(f"  {row['name']:30}", *cells, row["failed"] or (f"of {row['against']}" if row["against"] else ""))
