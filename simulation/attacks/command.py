"""gliofed-simulate attack=: settings, the attack, its table and files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gliofed.client.round.training import pick_device
from gliofed.shared.files import absolute, make_writable
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.run_folder import SimulationFolder
from gliofed.simulation.attacks import ATTACKS
from gliofed.simulation.attacks.report import labels_apart, rows_table, write_rows
from gliofed.simulation.attacks.settings import AttackConfig, Row
from gliofed.simulation.attacks.target import Target, open_target
from gliofed.simulation.simulate import only_one

Attack = Callable[[Sequence[Target], AttackConfig, Path], Sequence[Row]]

PIPE = 120
"""Characters in a line where nobody looks at a terminal, so that no figure is cut."""

BESIDE = ("attack", "run", "out", "device", "threads", "attacks")
"""Settings that an attack has; the others are the run's own."""


def attack(values: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Attack the runs that the composed `values` name, print the table, and return the folder of the results.

    `overrides` are what the user gave: one that the attack would not heed is refused. Raises ConfigError or DataError.
    """
    name = values["attack"]
    if name is None:
        raise ConfigError(f"run={values['run']}: is the run that attack= attacks; known are {', '.join(ATTACKS)}")
    if not isinstance(name, str) or name not in ATTACKS:
        raise ConfigError(f"attack={name}: unknown; known are {', '.join(ATTACKS)}")
    if values["run"] is None:
        raise ConfigError(f"attack={name}: needs run=DIR, the folder of a finished run")
    if others := [word for word in overrides if word.split("=")[0].split(".")[0] not in BESIDE]:
        raise ConfigError(f"attack={name}: the run keeps its settings; drop {others[0]}")
    if not isinstance(values["attacks"], Mapping):
        raise ConfigError(f"attacks={values['attacks']}: must be a group of settings; see gliofed-simulate --help")
    machine = {key: values[key] for key in ("device", "threads")}
    settings = parse(AttackConfig, {**values["attacks"], **machine}, "attacks")
    pick_device(settings.device)  # or refuse it, before anything is read
    torch.set_num_threads(settings.threads)
    targets = _targets(values["run"], settings)
    out = absolute(str(values["out"])) if values["out"] else SimulationFolder(targets[0].folder).attacks / name
    make_writable(out, f"out={out}")
    with only_one(out):
        run: Attack = getattr(import_module(ATTACKS[name]), name)
        rows = run(targets, settings, out)
        write_rows(out / f"{name}.json", name, targets, settings, rows)
    console = Console()
    console.width = console.width if console.is_terminal else PIPE
    console.print(rows_table(f"attack={name}", rows))
    print(f"results in {out}: {name}.json, {name}.png")
    return out


def _targets(given: Any, settings: AttackConfig) -> list[Target]:
    folders = [absolute(str(folder)) for folder in (given if isinstance(given, list) else [given])]
    if not folders:
        raise ConfigError("run=[]: names no run; give the folder of a finished one")
    targets = [open_target(folder, settings) for folder in folders]
    labels = labels_apart({target.folder: target.label for target in targets})
    if len(labels) < len(targets):
        raise ConfigError(f"run={','.join(map(str, folders))}: names one twice")
    return [replace(target, label=label) for target, label in zip(targets, labels, strict=True)]
