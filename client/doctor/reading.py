"""One file to its last byte: its hash, and its decoded header over the bytes, or what is wrong with it."""

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path
from typing import Any

from nibabel.imageglobals import logger

from gliofed.client.doctor.findings import FileState
from gliofed.shared.data.volume import STARTS, DataError, check_foreign, image_of
from gliofed.shared.wording import quantity

BLOCK = 1 << 20
"""Bytes read at a time."""
MOST = 1 << 30
"""Most unzipped bytes of a file that are kept, and so of memory; four float64 volumes of BraTS have 286 MB."""
GZIP = b"\x1f\x8b"
SIZES = {348: b"n+1\0", 540: b"n+2\0"}
"""Bytes of a header of NIfTI 1 and 2 -> the magic of a single file."""


def read_file(path: Path) -> tuple[FileState | None, Any]:
    """Read a file once; its state, None if it cannot be opened, and nibabel's image or the DataError that it is.

    Codes: unreadable, empty_file, wrong_format, truncated, bad_crc, size.
    """
    try:
        with path.open("rb") as file:
            stat, hashed = os.fstat(file.fileno()), _Hashed(file)
            try:
                image = _decoded(path, _unzipped(path, io.BufferedReader(hashed, BLOCK)))
            except DataError as fault:
                image = fault
            while hashed.readinto(bytearray(BLOCK)):  # what is behind the damage belongs to the hash
                pass
    except OSError as error:
        why = error.strerror or error
        return None, DataError("unreadable", f"{path}: {why}; look at the file and its rights")
    return FileState(path, stat.st_size, stat.st_mtime_ns, hashed.digest.hexdigest()), image


class _Hashed(io.RawIOBase):
    """A file that hashes what is read of it."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        return count


def _unzipped(path: Path, file: io.BufferedReader) -> bytes:
    """The content; a gzip stream is read to the checksum at its end."""
    start, named = file.peek(STARTS), path.name.lower().endswith(".gz")
    if not start:
        raise DataError("empty_file", f"{path}: has 0 bytes; copy it again from its source")
    check_foreign(path, start[:STARTS])
    if named and start[:2] != GZIP:
        raise DataError("wrong_format", f"{path}: is not gzipped, though its name says so; gzip it, or drop the .gz")
    if not named and start[:2] == GZIP:
        raise DataError("wrong_format", f"{path}: is gzipped, though its name does not say so; name it {path.name}.gz")
    try:
        content = _kept(path, gzip.GzipFile(fileobj=file) if named else file)
    except EOFError:
        raise DataError("truncated", f"{path}: the gzip stream ends too early; copy it again from its source") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        # Python tells the two only by these words.
        sums = "CRC check failed" in str(error) or "Incorrect length" in str(error)
        raise DataError(
            "bad_crc" if sums else "unreadable",
            f"{path}: its bytes were changed on the way ({error}); copy it again from its source",
        ) from None
    if not content:
        raise DataError("empty_file", f"{path}: holds nothing but a gzip header; copy it again from its source")
    return content


def _kept(path: Path, stream: Any) -> bytes:
    """Read a stream to its end, and keep it unless it is larger than any scan."""
    kept, total = io.BytesIO(), 0
    while block := stream.read(BLOCK):
        total += len(block)
        if total <= MOST:
            kept.write(block)
    if total > MOST:
        raise DataError("size", f"{path}: holds {total} bytes, more than the {MOST} that are looked at; crop the scan")
    return kept.getvalue()


def _decoded(path: Path, content: bytes) -> Any:
    """Decode the header, if there is one."""
    lengths = int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")
    length = next((each for each in lengths if each in SIZES), None)
    if length is None:
        check_foreign(path, content[:STARTS])
        raise DataError("wrong_format", f"{path}: is not NIfTI, it starts with {content[:8]!r}; convert it to NIfTI")
    if len(content) < length:
        has = quantity(len(content), "byte")
        raise DataError("truncated", f"{path}: has {has}, a header has {length}; copy it again")
    magic = content[344:348] if length == 348 else content[4:8]
    if magic != SIZES[length]:
        what = f"is no single NIfTI file (magic {magic!r})"
        raise DataError("wrong_format", f"{path}: {what}; save it as .nii or .nii.gz")
    logger.disabled = True  # nibabel tells stderr what it mends
    try:
        return image_of(path, content)
    finally:
        logger.disabled = False
