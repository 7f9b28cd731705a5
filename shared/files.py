"""Files that are whole or absent: temporary file, fsync, rename."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import uuid4

from gliofed.shared.parse import ConfigError


class Below:
    """A path below the `root` of a `KeptFolder`, as its attribute."""

    def __init__(self, path: str, doc: str) -> None:
        self._path, self.__doc__ = path, doc

    def __get__(self, folder: "KeptFolder", _: type) -> Path:
        return folder.root / self._path


@dataclass(frozen=True)
class KeptFolder:
    """A folder that users keep: its class names each of its files once, with `Below`."""

    root: Path


def home_path(given: str | Path) -> Path:
    """A path as a user wrote it, with ~ replaced. Raises ConfigError where it can be none."""
    if "\0" in str(given):
        raise ConfigError(f"{given}: has a zero byte, which no path has; write it anew")
    path = os.path.expanduser(given)  # Path's own would take ./~ for ~ as well
    if path.startswith("~"):
        raise ConfigError(f"{given}: no such user on this machine; a folder of that name is ./{given}")
    return Path(path)


def absolute(given: str | Path) -> Path:
    """The whole path of what a user wrote. Raises ConfigError where it can be none."""
    path, circle = home_path(given), f"{given}: links that lead in a circle; give the folder itself"
    try:
        whole = path.resolve()
    except RuntimeError:  # until Python 3.12
        raise ConfigError(circle) from None
    try:
        os.stat(whole)
    except OSError as error:  # what is not there yet may come
        if error.errno == errno.ELOOP:
            raise ConfigError(circle) from None
    return whole


def make_writable(folder: Path, named: str) -> Path:
    """Make a folder, and try to write into it. Raises ConfigError; `named` is what its user calls it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigError(f"{named}: {error.strerror}; give a folder that can be written") from None


def write_bytes(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old one or the new one, also after a power cut.

    It has these rights, less the umask's, from its first moment on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. Raises ValueError over NaN, for it is not JSON."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """JSON as `write_json` writes it."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def append_line(path: Path, line: str) -> None:
    """Append one line and wait until it is on disk."""
    with path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` at the end, whole; on an error nothing is left.

    What a killed process left of the same folder is removed: a folder has one writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for half in path.parent.glob(f".{path.name}.*.tmp"):
        rmtree(half)
    temporary, before = (path.with_name(f".{path.name}.{uuid4().hex}.tmp") for _ in range(2))
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        sync(temporary)
        if path.exists():
            path.replace(before)  # a process that is killed while it removes a folder leaves half of it
        temporary.replace(path)
    finally:
        rmtree(temporary, ignore_errors=True)
    sync(path.parent)
    rmtree(before, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
