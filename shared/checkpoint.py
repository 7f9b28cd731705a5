"""The server's state on disk: tensors as safetensors, the rest as JSON, whole or absent."""

import json
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.files import new_folder, write_json

KEEP = 2  # the newest, and the one before it for a person to go back to


def save_checkpoint(root: Path, number: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Any) -> None:
    """Save groups of named tensors and a JSON state as `root/round-NNNN`, then drop the oldest."""
    with new_folder(root / f"round-{number:04d}") as folder:
        for group, named in tensors.items():
            save_file({name: tensor.contiguous() for name, tensor in named.items()}, folder / f"{group}.safetensors")
        write_json(folder / "state.json", state)
    for old in _found(root)[:-KEEP]:
        rmtree(old)


def load_checkpoint(root: Path) -> tuple[dict[str, dict[str, Tensor]], Any] | None:
    """Return the newest checkpoint's tensors by group and state, or None where there is none.

    What a killed process left half-written has another name and is never read; saving that round removes it.
    """
    found = _found(root)
    if not found:
        return None
    tensors = {file.stem: load_file(file) for file in found[-1].glob("*.safetensors")}
    return tensors, json.loads((found[-1] / "state.json").read_text())


def _found(root: Path) -> list[Path]:
    return sorted(root.glob("round-*"), key=lambda folder: int(folder.name.removeprefix("round-")))
