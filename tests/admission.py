"""A hospital's request to join, and what the aggregator's folder holds of it."""

import json
from pathlib import Path

from gliofed.client.link.join import join
from gliofed.server.provisioning.admit import admitted_keys, read_records
from gliofed.shared.parse import ConfigError


def asked(folder: Path, into: Path, site: str = "hospital-a") -> Path:
    """The request of a hospital that joins."""
    join(folder / f"kits/{site}.zip", into, patients=100)
    return into / f"{site}.request.json"


def record(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "sites/hospital-a/site.json").read_text()))


def admitted(folder: Path) -> list[str]:
    """The sites that may connect, where nothing is damaged; else what is wrong, as ConfigError."""
    records, damaged = read_records(folder)
    keys, wrong = admitted_keys(folder, records)
    if faults := damaged | wrong:
        raise ConfigError("; ".join(faults.values()))
    return list(keys)
