"""A folder and all below it, listed once: no file is opened."""

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gliofed.shared.data.names import ImageName, image_name, is_image, stem

DEEPEST = 50
"""Folders, one in the other, that are looked into."""


@dataclass(frozen=True)
class Folder:
    """What lies in a folder, by name; hidden files and folders, which may be half-written, are left out."""

    path: Path
    files: tuple[str, ...] = ()
    folders: tuple["Folder", ...] = ()
    fault: str = ""
    """Why it was not listed, and the cure."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    def child(self, name: str) -> "Folder":
        """The folder of that name, in whatever letters; an empty one where there is none."""
        found = (folder for folder in self.folders if folder.name.lower() == name.lower())
        return next(found, Folder(self.path / name))

    def nifti(self, name: str) -> list[Path]:
        """The NIfTI files of that name, in whatever letters; copies have it as well."""
        return [self.path / file for file in self.files if (stem(file) or "").lower() == name.lower()]

    @cached_property
    def named(self) -> dict[str, ImageName]:
        """The NIfTI files whose names end in a modality or mask, read once for all layouts."""
        return {file: name for file in self.files if (name := image_name(file))}

    @cached_property
    def images(self) -> list[Path]:
        """The image files in the folder itself, in any format."""
        return [self.path / file for file in self.files if is_image(file)]

    def walk(self, down_to: Set[Path] = frozenset()) -> Iterator["Folder"]:
        """The folder, then all below it, but nothing below the folders `down_to`."""
        yield self
        for folder in self.folders if self.path not in down_to else ():
            yield from folder.walk(down_to)


def list_folder(path: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Folder:
    """List a folder and all below it. A link that leads back to a folder `above`, by device and inode, is left out."""
    if len(above) > DEEPEST:
        return Folder(path, fault=f"lies more than {DEEPEST} folders deep; move what is in it up, or out")
    try:
        state = path.stat()
        if (state.st_dev, state.st_ino) in above:
            return Folder(path)
        with os.scandir(path) as entries:
            seen = sorted((entry.name, _is_folder(entry)) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        return Folder(path, fault=f"cannot be listed, {error.strerror or error}; look at its rights")
    above |= {(state.st_dev, state.st_ino)}
    files = tuple(name for name, is_folder in seen if not is_folder)
    return Folder(path, files, tuple(list_folder(path / name, above) for name, is_folder in seen if is_folder))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is one; a link that leads nowhere or in a circle is looked at as one, and its fault is told."""
    try:
        return entry.is_dir()
    except OSError:
        return True
