"""The federation's certificate authority, and the server certificates that it signs."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gliofed.server.provisioning.federation import SOON
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.files import new_folder, write_bytes
from gliofed.shared.keys import new_key, private_bytes, read_authority, write_secret
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import command_line

AUTHORITY_DAYS = 3650
SLACK = timedelta(hours=1)
"""A certificate begins so long ago: a hospital's clock may be behind."""
SERVER_CERTIFICATES = ("server", "link")


@dataclass(frozen=True)
class Authority:
    """Who signs."""

    key: ec.EllipticCurvePrivateKey | None
    """None: it is kept elsewhere, as it should be; only a new certificate needs it."""
    certificate: x509.Certificate


def make_authority(folder: Path, federation: str, now: datetime) -> Authority:
    """Make ca/ca.key and ca/ca.crt, both or none."""
    key = new_key()
    name = _name(federation, "CA")
    certificate = (
        _begin(name, name, key, now, now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA384())
    )
    with new_folder(FederationFolder(folder).ca) as half:
        half.chmod(0o700)
        write_secret(half / FederationFolder(folder).authority_key.name, private_bytes(key, PrivateFormat.PKCS8))
        write_bytes(half / FederationFolder(folder).authority.name, certificate.public_bytes(Encoding.PEM))
    return Authority(key, certificate)


def load_authority(folder: Path) -> Authority:
    """Load the authority, its key where that is here.

    Raises ConfigError where it is gone, or has a key alone or another's. It is never made anew: that would lock out
    every hospital that has joined.
    """
    key_path, path = FederationFolder(folder).authority_key, FederationFolder(folder).authority
    cure = "restore it from a copy, or make a new federation in another folder, which every hospital joins anew"
    if not key_path.exists() and not path.exists():
        raise ConfigError(f"{folder}/ca: missing, though it was made before; restore it from a copy")
    if not path.exists():
        raise ConfigError(f"{path}: missing, while its other half is there; {cure}")
    certificate = read_authority(path.read_bytes(), str(path))
    if not key_path.exists():
        return Authority(None, certificate)
    key = _private(key_path)
    if key is None or key.public_key() != certificate.public_key():
        raise ConfigError(f"{key_path}: not the key of ca.crt; {cure}")
    return Authority(key, certificate)


def write_certificate(path: Path, authority: Authority, names: Iterable[str], days: int, now: datetime) -> None:
    """Make a server's new key and certificate; it ends with the authority's at the latest.

    Raises ConfigError where the authority's has ended, for the hospitals would refuse it, or its key is not here.
    """
    if authority.key is None:
        raise ConfigError(f"ca/ca.key: needed for a new {path.name}; put it back for now from where it is kept")
    last = authority.certificate.not_valid_after_utc
    if last <= now:
        raise ConfigError(f"ca/ca.crt ended on {last:%Y-%m-%d}; make a new federation in another folder")
    key = new_key()
    issuer = authority.certificate
    [federation] = issuer.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    subject = _name(str(federation.value), "server")
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _begin(subject, issuer.subject, key, now, min(now + timedelta(days=days), last))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signer, critical=False)
        .sign(authority.key, SHA384())
    )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    # A crash between the two leaves a pair that does not fit, which `stale` finds.
    write_secret(path.with_suffix(".key"), private_bytes(key, PrivateFormat.PKCS8))
    write_bytes(path, certificate.public_bytes(Encoding.PEM))


def stale(path: Path, authority: Authority, names: Iterable[str], now: datetime, days: int = SOON) -> str | None:
    """Say why a server's certificate must be made anew; None where it may stay, for so many days at least."""
    if not path.exists() or not path.with_suffix(".key").exists():
        return "there was none"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
        there = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return "the old one was not of this authority"
    key = _private(path.with_suffix(".key"))
    if key is None or key.public_key() != certificate.public_key():
        return "the old one had another key"
    if set(there) != {_general(name) for name in names}:
        return "the names changed"
    if certificate.not_valid_after_utc < now + timedelta(days=days):
        return f"the old one ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return None


def ending_soon(folder: Path, now: datetime | None = None) -> list[str]:
    """Name each certificate of a federation that ends within 30 days or has ended, and what to do."""
    now = now or datetime.now(UTC)
    renew = f"run {command_line('gliofed-server', 'renew', folder)}, and start the server anew"
    cures = {"ca/ca.crt": "make a new federation in another folder, which every hospital joins anew"}
    cures |= {f"server/{name}.crt": renew for name in SERVER_CERTIFICATES}
    sentences = []
    for name, cure in cures.items():
        if not (folder / name).exists():
            continue
        try:
            last = x509.load_pem_x509_certificate((folder / name).read_bytes()).not_valid_after_utc
        except ValueError:
            sentences.append(f"{folder / name}: no certificate; {cure}")
            continue
        if last < now + timedelta(days=SOON):
            sentences.append(f"{folder / name} {'ends' if last > now else 'ended'} on {last:%Y-%m-%d}; {cure}")
    return sentences


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, last: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - SLACK, last)


def _name(federation: str, role: str) -> x509.Name:
    attributes = ((NameOID.ORGANIZATION_NAME, federation), (NameOID.COMMON_NAME, f"gliofed {role}"))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name.lower())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        return cast(ec.EllipticCurvePrivateKey, load_pem_private_key(path.read_bytes(), None))
    except (ValueError, TypeError):
        return None
