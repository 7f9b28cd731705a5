"""gliofed-client predict: what was asked for is checked before PyTorch is loaded and scans are read."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.shared.data.labels import LABELS, region_values
from gliofed.shared.data.layouts import Inventory, take_inventory
from gliofed.shared.data.leftovers import counted
from gliofed.shared.exported import Exported, find_export, read_export
from gliofed.shared.files import absolute, write_json
from gliofed.shared.hydra_words import composed
from gliofed.shared.parse import ConfigError, Strict, parse
from gliofed.shared.site_config import Device
from gliofed.shared.tasks import TASKS
from gliofed.shared.terminal import plain
from gliofed.shared.versions import versions
from gliofed.shared.wording import quantity

if TYPE_CHECKING:
    from gliofed.client.prediction.predict import Predictor

FAILED = 1
_PATHS = {"model": "model.folder", "data.root": "data.root", "out": "out", "work": "work"}


@dataclass(frozen=True, kw_only=True)
class _Model(Strict):
    folder: str
    iterations: int | None
    stop_when_stable: bool | None


@dataclass(frozen=True, kw_only=True)
class _Data(Strict):
    root: str
    labels: str | None


@dataclass(frozen=True, kw_only=True)
class _Settings(Strict):
    model: _Model
    data: _Data
    out: str | None
    work: str | None
    device: Device


def predict_command(overrides: list[str]) -> int:
    """Do what the words after `predict` ask for; 0, or 1 where a case failed. Raises UserError over wrong use."""
    settings = parse(_Settings, composed("predict", overrides, _PATHS))
    options = {"iterations": settings.model.iterations, "stop_when_stable": settings.model.stop_when_stable}
    folder = find_export(absolute(settings.model.folder))
    exported, labels = read_export(folder, options), settings.data.labels
    if TASKS[exported.task].label is None:
        if labels is None:
            raise ConfigError(f"data.labels: must be given, the scheme of the masks; known are {', '.join(LABELS)}")
        _check_scheme(labels, exported.data.regions)
    inventory = take_inventory(absolute(settings.data.root), labels or "")
    out = absolute(settings.out or f"outputs/{datetime.now().astimezone():%Y-%m-%d/%H-%M-%S}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out={out}: is there and not empty; give a new folder, or remove it")
    for stray in inventory.not_understood:
        print(plain(f"not understood: {stray}"), file=sys.stderr)
    try:
        predictor = _load(folder, exported, settings)
        return _predict(predictor, labels, inventory, out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; masks that are written are whole") from None


def _check_scheme(labels: str, regions: Sequence[str]) -> None:
    """Raise ConfigError where the scheme lacks a region of the model, which is no setting of this command."""
    if lacks := [region for region in regions if region not in LABELS.get(labels, regions)]:
        fit = [name for name, scheme in LABELS.items() if scheme.keys() >= {*regions}]
        cure = f"give one of {', '.join(fit)}" if fit else "no scheme has all of its regions"
        raise ConfigError(f"data.labels={labels}: has no {', '.join(lacks)}, which this model segments; {cure}")
    region_values(labels, regions)


def _load(folder: Path, exported: Exported, settings: _Settings) -> "Predictor":
    # Imported here, so that a mistyped word is answered at once.
    from gliofed.client.prediction.predict import load
    from gliofed.client.round.training import pick_device

    work = absolute(settings.work) if settings.work else None
    try:
        return load(folder, exported, pick_device(settings.device), work)
    except ValueError as error:  # names the key, the value and the cure
        raise ConfigError(str(error)) from None


def _predict(predictor: "Predictor", labels: str | None, inventory: Inventory, out: Path) -> int:
    from gliofed.client.prediction.predict import predict
    from gliofed.shared.progress import Bar

    exported, cases, strays = predictor.exported, inventory.cases, [str(stray) for stray in inventory.not_understood]
    out.mkdir(parents=True, exist_ok=True)
    done = count(1)
    with Bar("predicting") as bar:

        def report(line: str) -> None:
            bar.report(next(done), len(cases))
            bar.line(line)

        outcome = predict(predictor, cases, labels, out, report)
    made = {"run_id": exported.run_id, "round": exported.round, "task": exported.task, "labels": labels}
    warned = {
        name: [f"{each.code}: {each.message}" for each in found] for name, found in outcome.predicted.items() if found
    }
    results = {"failed": outcome.faults, "warnings": warned, "not_understood": strays}
    write_json(out / "predict.json", made | results | {"versions": versions()})
    for name, sentence in outcome.faults.items():
        print(plain(f"{name}: {sentence}"), file=sys.stderr)
    for name, sentences in warned.items():
        for sentence in sentences:
            print(plain(f"warning: {name}: {sentence}"), file=sys.stderr)
    label = TASKS[exported.task].label
    what = label.table if label else "masks"
    rest = f", {len(warned)} with warnings" if warned else ""
    rest += f"; not understood: {counted(inventory.not_understood)}" if strays else ""
    print(f"{len(outcome.predicted)} of {quantity(len(cases), 'case')} predicted{rest}; {what} in {out}")
    return FAILED if outcome.faults or (strays and not inventory.listed) else 0  # a table says who is meant
