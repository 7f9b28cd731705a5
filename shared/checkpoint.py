"""The server's state on disk: tensors as safetensors, the rest as JSON, whole or absent."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from gliofed.shared.files import new_folder, write_bytes, write_json
from gliofed.shared.parse import ConfigError

KEEP = 2  # the newest, and the one before it for a person to go back to
STATE, GROUPS = "state.json", ("model", "optimizer")
"""The file of all that is no tensor, and the groups that every checkpoint has; it names those of some runs alone."""


def save_checkpoint(
    root: Path, number: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Save groups of named tensors, a file each, and a JSON state as `root/round-NNNN`, then drop the oldest."""
    with new_folder(root / f"round-{number:04d}") as folder:
        for group, named in tensors.items():
            data = save({name: tensor.contiguous() for name, tensor in named.items()})
            write_bytes(folder / f"{group}.safetensors", data)
        more = [group for group in tensors if group not in GROUPS]
        write_json(folder / STATE, {**state, "groups": more} if more else state)
    for old in _found(root)[:-KEEP]:
        rmtree(old)


def load_checkpoint(root: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Return the newest checkpoint's tensors by group and state, or None where there is none.

    What a killed process left half-written has another name and is never read; saving that round removes it.
    Raises ConfigError where a file is damaged, by a disk or by hand: whoever runs it decides to go back a round.
    """
    found = _found(root)
    if not found:
        return None
    with _sound(found[-1]):
        state, groups = _state(found[-1])
        tensors = {group: load((found[-1] / f"{group}.safetensors").read_bytes()) for group in groups}
    return tensors, state


def check_checkpoint(root: Path, model: Mapping[str, Tensor] | None = None) -> None:
    """Raise `load_checkpoint`'s ConfigError where it would, without reading the tensors: their header and length.

    And where the newest checkpoint is not of a `model` with tensors of these names and shapes, if one is given.
    """
    for folder in _found(root)[-1:]:
        shapes = {}
        with _sound(folder):
            for group in _state(folder)[1]:
                with safe_open(folder / f"{group}.safetensors", "numpy") as file:
                    if group == "model":
                        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        if model is not None and shapes != {name: tuple(tensor.shape) for name, tensor in model.items()}:
            cure = "finish the run with the version that began it, or begin a new one"
            raise ConfigError(f"{folder}: weights of another model than this version of gliofed has; {cure}")


def _state(folder: Path) -> tuple[dict[str, Any], list[str]]:
    state = dict(json.loads((folder / STATE).read_text()))
    return state, [*GROUPS, *map(str, state.pop("groups", ()))]


@contextmanager
def _sound(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"{folder}: damaged ({type(error).__name__}); remove this folder to go on from the round before"
        ) from None


def _found(root: Path) -> list[Path]:
    folders = [folder for folder in root.glob("round-*") if folder.name.removeprefix("round-").isdecimal()]
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("round-")))
