"""What a run across machines signs its requests with, and the keys with which its sites sign their replies."""

import base64
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.keys import read_public
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import command_line


@dataclass(frozen=True)
class RunKeys:
    """Keys of a federation's folder."""

    key: ec.EllipticCurvePrivateKey
    certificate: str
    """Of the key: DER, base64."""
    folder: FederationFolder
    """With each admitted site's key."""

    def of_site(self, site: str) -> ec.EllipticCurvePublicKey | None:
        """The key that a site is admitted with at this moment; None where it cannot be read, which `start` says."""
        path = self.folder.key(site)
        with suppress(ConfigError, OSError):
            return read_public(path.read_text(errors="replace"), str(path))
        return None


def open_keys(folder: Path) -> RunKeys:
    """Read the keys of a federation's folder, or raise ConfigError.

    The server signs with the key of link.crt, which by itself speaks TLS on loopback alone. What is signed begins with
    words of ours and is text to its end, which nothing is that TLS signs.
    """
    path = FederationFolder(folder).link_key
    renew = f"run {command_line('gliofed-server', 'renew', folder)}"
    try:
        key = load_pem_private_key(path.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(path.with_suffix(".crt").read_bytes())
    except (OSError, ValueError, TypeError):
        raise ConfigError(f"{path}: cannot be read, with its certificate; {renew}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{path}: not the key of link.crt; {renew}")
    return RunKeys(key, base64.b64encode(certificate.public_bytes(Encoding.DER)).decode(), FederationFolder(folder))
