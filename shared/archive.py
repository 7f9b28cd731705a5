"""Zip archives: the same files give the same bytes, and one from elsewhere is read with distrust."""

import re
import zlib
from collections.abc import Mapping
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from gliofed.shared.parse import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


def write_zip(files: Mapping[str, bytes]) -> bytes:
    """Pack files in the order of their names, with a fixed date."""
    packed = BytesIO()
    with ZipFile(packed, "w", ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(ZipInfo(name), files[name], ZIP_DEFLATED)
    return packed.getvalue()


def read_zip(data: bytes, what: str, limit: int) -> dict[str, bytes]:
    """Unpack in memory; `what` names the archive in an error.

    Raises ConfigError where it is no zip, holds more than `limit` bytes, a path that leads outside, or a name twice.
    """
    files: dict[str, bytes] = {}
    try:
        with ZipFile(BytesIO(data)) as archive:
            for entry in archive.infolist():
                name = entry.filename
                if not _plain(entry) or name in files:
                    raise ConfigError(f"{what}: it holds {name!a}, which does not belong there; ask for a new one")
                # The size that an entry claims may be a lie: what is read is counted.
                with archive.open(entry) as file:
                    files[name] = file.read(limit + 1)
                limit -= len(files[name])
                if limit < 0:
                    raise ConfigError(f"{what}: too large when unpacked; ask for a new one")
    except (BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}: damaged, or no zip archive ({error}); ask for a new one") from None
    return files


def _plain(entry: ZipInfo) -> bool:
    """Whether an entry is a file of a plain relative path: no folder, link, encryption or rare compression."""
    return (
        _NAME.fullmatch(entry.orig_filename) is not None
        and not {".", ".."} & set(entry.filename.split("/"))
        and (entry.external_attr >> 16) & 0o170000 in (0, 0o100000)
        and not entry.flag_bits & 1
        and entry.compress_type in (ZIP_STORED, ZIP_DEFLATED)
    )
