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
GROUPS, STATE = ("model", "optimizer"), "state.json"
"""Of tensors; each is a file of a checkpoint. Those of some runs alone are named in its state, as `groups`."""


def save_checkpoint(root: Path, number: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Any) -> None:
    """Save groups of named tensors and a JSON state as `root/round-NNNN`, then drop the oldest.

    A group beside GROUPS is saved where it has tensors.
    """
    more = sorted(group for group, named in tensors.items() if named and group not in GROUPS)
    with new_folder(root / f"round-{number:04d}") as folder:
        for group in (*GROUPS, *more):
            data = save({name: tensor.contiguous() for name, tensor in tensors[group].items()})
            write_bytes(folder / f"{group}.safetensors", data)
        write_json(folder / STATE, state | ({"groups": more} if more else {}))
    for old in _found(root)[:-KEEP]:
        rmtree(old)


def load_checkpoint(root: Path) -> tuple[dict[str, dict[str, Tensor]], Any] | None:
    """Return the newest checkpoint's tensors by group and state, or None where there is none.

    What a killed process left half-written has another name and is never read; saving that round removes it.
    Raises ConfigError where a file is damaged, by a disk or by hand: whoever runs it decides to go back a round.
    """
    found = _found(root)
    if not found:
        return None
    with _sound(found[-1]):
        state = json.loads((found[-1] / STATE).read_text())
        groups = _groups(state)
        tensors = {group: load((found[-1] / f"{group}.safetensors").read_bytes()) for group in groups}
    return tensors, state


def check_checkpoint(root: Path) -> None:
    """Raise `load_checkpoint`'s ConfigError where it would, without reading the tensors: their header and length."""
    for folder in _found(root)[-1:]:
        with _sound(folder):
            for group in _groups(json.loads((folder / STATE).read_text())):
                with safe_open(folder / f"{group}.safetensors", "numpy"):
                    pass


def _groups(state: Any) -> tuple[str, ...]:
    return *GROUPS, *state.get("groups", ())


@contextmanager
def _sound(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"{folder}: damaged ({type(error).__name__}); remove this folder to go on from the round before"
        ) from None


def _found(root: Path) -> list[Path]:
    folders = [folder for folder in root.glob("round-*") if folder.name.removeprefix("round-").isdecimal()]
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("round-")))
