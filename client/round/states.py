"""What a site keeps of a run between its rounds: a state for each of its last replies, until one of them counted.

A state is stored before the reply of which it is, under the SHA-256 of that reply's update; the next request names the
update that counted last. A state moves on only so: what did not count changes nothing at the site either.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from safetensors import SafetensorError
from safetensors.torch import load, save

from gliofed.client.round.policy import DeclinedError
from gliofed.shared.algorithms.groups import Groups, joined, parted
from gliofed.shared.files import write_bytes

CURE = "ask the aggregator to let this site start anew"
PENDING = 2
"""Newest states that are kept beside the one that they began from: a server that was restored from a backup may ask one
round back."""


@dataclass(frozen=True)
class States:
    """The states of one run at one site."""

    folder: Path
    """It need not be there yet."""

    def load(self, update_sha256: str) -> Groups:
        """Return what was kept with an update. Raises DeclinedError `state`: it is gone, or damaged."""
        for path in self._of(update_sha256):
            data = path.read_bytes()
            try:
                if hashlib.sha256(data).hexdigest()[:16] == path.stem.rpartition("-")[2]:
                    return parted(load(data))[1]
            except SafetensorError:
                pass
            raise DeclinedError("state", f"{path}: damaged; put it back from a copy, or {CURE}")
        raise DeclinedError("state", f"{self.folder}: no state of update {update_sha256[:16]}; {CURE}")

    def has(self, update_sha256: str) -> bool:
        """Whether there is a state of this update."""
        return bool(self._of(update_sha256))

    def store(self, update_sha256: str, kept: Groups, parent: str) -> None:
        """Store what is kept with an update, that began from the state of `parent`; then drop the oldest others."""
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in joined({}, kept).items()})
        path = self.folder / f"{update_sha256}-{hashlib.sha256(data).hexdigest()[:16]}.safetensors"
        counted = self._of(parent)[:1] if parent else []
        for each in counted:  # newer than what was tried from it and did not count, which goes first
            each.touch()
        write_bytes(path, data)
        others = {*self.folder.glob("*.safetensors")} - {path, *counted}
        for old in sorted(others, key=_age)[: 1 - PENDING]:
            old.unlink()

    def _of(self, update_sha256: str) -> list[Path]:
        """The newest first: two rounds may have the same update, of zeros, say, and other states."""
        return sorted(self.folder.glob(f"{update_sha256}-*.safetensors"), key=_age, reverse=True)


def forget(states: Path, but: Collection[str]) -> list[str]:
    """Remove what is kept of all runs but these; return the ids of those of which there was something."""
    folders = sorted(folder for folder in states.glob("*/") if folder.name not in but)
    for folder in folders:
        rmtree(folder)
    return [folder.name for folder in folders]


def _age(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, path.name
