"""What the aggregator sends a hospital so that it can join: a zip archive without a secret in it."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from gliofed.shared.archive import read_zip, write_zip
from gliofed.shared.keys import certificate_sha256, read_authority
from gliofed.shared.parse import ConfigError, SiteName, Strict, matching, parse

FILES = frozenset({"README.md", "ca.crt", "code.fab", "kit.json", "site.yaml"})
LIMIT = 16 * 2**20
"""Most bytes of a kit, packed and unpacked; Flower allows 10 MB of code."""

Sha256 = Annotated[str, matching(r"[0-9a-f]{64}", "must be a SHA-256, 64 digits of 0-9 and a-f")]


@dataclass(frozen=True, kw_only=True)
class Kit(Strict):
    """What kit.json says."""

    federation: SiteName
    site: SiteName
    address: str
    """host:port that the hospital connects to."""
    ca_sha256: Sha256
    """Of the authority's certificate."""
    code_sha256: Sha256
    """Of code.fab, the code that is proposed."""
    made: str
    """Time, ISO 8601."""

    def __post_init__(self) -> None:
        split_address(self.address)


def split_address(address: str) -> tuple[str, int]:
    """Split host:port, or raise ValueError.

    >>> split_address("[2001:db8::1]:443")
    ('2001:db8::1', 443)
    """
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[3]) < 2**16:
        raise ValueError(f"address={address}: must be host:port, as in fl.example.org:443")
    return found[1] or found[2], int(found[3])


def pack(kit: Kit, ca: bytes, code: bytes, site: str, readme: str) -> bytes:
    """Pack a kit; the same content gives the same bytes."""
    about = (json.dumps(asdict(kit), indent=2) + "\n").encode()
    texts = {"site.yaml": site.encode(), "README.md": readme.encode()}
    return write_zip({"kit.json": about, "ca.crt": ca, "code.fab": code, **texts})


def kit_sha256(data: bytes) -> str:
    """The hash of a kit, over all that is in it: of its file, as `sha256sum KIT.zip` shows it."""
    return hashlib.sha256(data).hexdigest()


def read_kit(path: Path) -> tuple[Kit, dict[str, bytes], str]:
    """Read a kit, its files by name and its hash, or raise ConfigError: not a kit, or its parts do not fit together.

    Whether it is the kit that the aggregator made is told by the hash alone.
    """
    with path.open("rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ConfigError(f"{path}: too large for a kit; ask for a new one")
    files = read_zip(data, str(path), LIMIT)
    if files.keys() != FILES:
        odd = ", ".join(sorted(files.keys() ^ FILES))
        raise ConfigError(f"{path}: not a kit, or an altered one: look at {odd}; ask for a new one")
    kit = parse_kit(files["kit.json"], f"{path}: kit.json")
    certificate = read_authority(files["ca.crt"], f"{path}: ca.crt")
    for name, is_sha256, says in (
        ("ca.crt", certificate_sha256(certificate), kit.ca_sha256),
        ("code.fab", hashlib.sha256(files["code.fab"]).hexdigest(), kit.code_sha256),
    ):
        if is_sha256 != says:
            raise ConfigError(f"{path}: altered: {name} is not the one that kit.json names; ask for a new one")
    return kit, files, kit_sha256(data)


def parse_kit(content: bytes, where: str) -> Kit:
    """Read kit.json, or raise ConfigError."""
    try:
        return parse(Kit, content.decode())
    except (UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from None
