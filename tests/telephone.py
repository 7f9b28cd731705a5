"""What a hospital reads to the aggregator by telephone."""

from pathlib import Path
from typing import Any

from gliofed.server.provisioning.admit import admit
from gliofed.shared.keys import fingerprint, read_public


def told(request: Path) -> str:
    """The fingerprint of the key that lies beside a request, at the hospital."""
    return fingerprint(read_public((request.parent / "site.key.pub").read_text(), "site.key.pub"))


def admit_told(request: Path, folder: Path, **known: Any) -> list[str]:
    """Admit a hospital after the call."""
    return admit(request, folder, told(request), **known)
