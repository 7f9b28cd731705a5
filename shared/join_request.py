"""A hospital's request to be admitted: its public key, signed by the private key that stays there."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from gliofed.shared.keys import is_signed, public_line, read_public, sign_bytes
from gliofed.shared.kit import Kit, Sha256
from gliofed.shared.parse import ConfigError, SiteName, Strict, parse

LIMIT = 2**16
"""Most bytes of a request; a real one has about 700."""
MOST_PATIENTS = 10_000_000
PatientCeiling = Annotated[int, Field(gt=0, le=MOST_PATIENTS)]
"""The most patients that a hospital ever trains with, as agreed when it joins."""


@dataclass(frozen=True, kw_only=True)
class JoinRequest(Strict):
    """What SITE.request.json says."""

    federation: SiteName
    site: SiteName
    ca_sha256: Sha256
    """Of the certificate that the hospital was given: names are free, and two federations may share one."""
    public_key: str
    """As in a file .pub."""
    made: str
    """Time, ISO 8601."""
    patients: PatientCeiling | None = None
    """Its number of patients at most, rounded up as the hospital likes. None: a version before numbers were agreed."""
    kit_sha256: Sha256 | None = None
    """Of the kit with which the hospital joined. None: an older version."""
    signature: str = ""
    """Of all the rest: ECDSA with SHA-384, base64."""

    def signed(self) -> bytes:
        """Give what the signature covers; its first line keeps it from being taken for anything else."""
        # Without what is None: an older version signed its request so.
        rest = {key: value for key, value in asdict(self).items() if key != "signature" and value is not None}
        return b"gliofed join request\n" + json.dumps(rest, sort_keys=True).encode()


def check_patients(patients: int | None) -> int:
    """Return the number that --patients gave, or raise ConfigError."""
    if patients is None:
        most = "the most patients that this hospital will ever train with, rounded up as it likes"
        raise ConfigError(f"--patients: must be given: {most}")
    if not 0 < patients <= MOST_PATIENTS:
        raise ConfigError(f"--patients {patients}: must be from 1 to {MOST_PATIENTS}")
    return patients


def sign_request(kit: Kit, kit_sha256: str, key: ec.EllipticCurvePrivateKey, made: str, patients: int) -> JoinRequest:
    """Ask for admission with this key, and at most so many patients."""
    request = JoinRequest(
        federation=kit.federation,
        site=kit.site,
        ca_sha256=kit.ca_sha256,
        public_key=public_line(key.public_key()),
        made=made,
        patients=patients,
        kit_sha256=kit_sha256,
    )
    return replace(request, signature=sign_bytes(key, request.signed()))


def read_request(path: Path) -> tuple[JoinRequest, ec.EllipticCurvePublicKey]:
    """Read a request and the key that signed it, or raise ConfigError: not one, altered, or another kind of key."""
    with path.open("rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ConfigError(f"{path}: too large for a request")
    try:
        request = parse(JoinRequest, data.decode())
    except (UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from None
    key = read_public(request.public_key, f"{path}: public_key")
    if not is_signed(key, request.signature, request.signed()):
        raise ConfigError(f"{path}: altered: the signature is not of its key; ask the hospital for it again")
    return request, key
