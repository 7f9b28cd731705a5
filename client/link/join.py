"""gliofed-client join: unpack a kit, make this hospital's key, and ask to be admitted."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import PrivateFormat

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.shared.files import absolute, new_folder, write_bytes, write_json
from gliofed.shared.join_request import check_patients, sign_request
from gliofed.shared.keys import fingerprint, new_key, pairs, private_bytes, public_line, read_authority, write_secret
from gliofed.shared.kit import read_kit
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import command_line

LEAST_DIGITS = 20
"""Digits of the kit's hash that are compared at least: 80 bits, more than anybody can look for another kit with."""


def join(
    path: Path,
    into: Path | None = None,
    *,
    patients: int | None,
    kit_hash: str | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Make the hospital's folder, whole or not at all, and say what to do next. Raises ConfigError.

    The aggregator is told that it has at most so many `patients`, and lets it weigh no more. `kit_hash` is what
    the aggregator reads by telephone, LEAST_DIGITS or more; None: it is compared afterwards. Nothing that is there
    is written over: a lost key locks the hospital out.
    """
    now, patients = now or datetime.now(UTC), check_patients(patients)
    kit, files, sha256 = read_kit(path)
    if kit_hash is not None:
        _compare(path, sha256, kit_hash)
    last = read_authority(files["ca.crt"], str(path)).not_valid_after_utc
    if last <= now:
        raise ConfigError(f"{path}: its authority ended on {last:%Y-%m-%d}; ask for a kit of a new federation")
    folder = absolute(into or f"{kit.federation}-{kit.site}")
    request = folder / f"{kit.site}.request.json"
    if HospitalFolder(folder).key.exists():
        cure = f"send {request.name} again, or join with another --into"
        raise ConfigError(f"{folder}: joined already, and its key stays; {cure}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: not an empty folder; give another with --into")
    key = new_key()
    with new_folder(folder) as half:
        for name, content in files.items():
            write_bytes(half / name, content)
        write_secret(HospitalFolder(half).key, private_bytes(key, PrivateFormat.OpenSSH))
        comment = f"{kit.site}@{kit.federation}"
        write_bytes(HospitalFolder(half).public_key, f"{public_line(key.public_key())} {comment}\n".encode())
        signed = sign_request(kit, sha256, key, now.isoformat(timespec="seconds"), patients)
        write_json(half / request.name, asdict(signed))
    return [
        f"{folder}: made; site.key in it must never leave this machine",
        f"send {request} to the aggregator, and compare by telephone:",
        f"  the kit                  {pairs(sha256)}",
        f"  this hospital's key      {fingerprint(key.public_key())}",
        f"  its patients, at most    {patients}",
        "if the aggregator reads out another hash of the kit, do not use it: it was altered, or was made again since",
        "then follow README.md there:",
        f"  {command_line('cd', folder)}",
    ]


def _compare(path: Path, sha256: str, kit_hash: str) -> None:
    digits = "".join(kit_hash.split()).replace(":", "").lower()
    if len(digits) < LEAST_DIGITS:
        raise ConfigError(f"--hash: give the first {LEAST_DIGITS} digits or more, which are {LEAST_DIGITS // 2} pairs")
    if not sha256.startswith(digits):
        cure = "it was altered, or was made anew since; ask for it again, by another channel"
        raise ConfigError(f"{path}: its hash is {pairs(sha256)}, and not what the aggregator read: {cure}")
