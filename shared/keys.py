"""Keys and fingerprints. Every key is on the curve P-384, the strongest that Flower's nodes take."""

import base64
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
    ssh_key_fingerprint,
)

from gliofed.shared.files import write_bytes
from gliofed.shared.parse import ConfigError


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key from the operating system's randomness."""
    return ec.generate_private_key(ec.SECP384R1())


def private_bytes(key: ec.EllipticCurvePrivateKey, form: PrivateFormat) -> bytes:
    """Write a private key as PEM without a password: a service starts unattended. OpenSSH's form is Flower's."""
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def public_line(key: ec.EllipticCurvePublicKey) -> str:
    """Write a public key as in a file .pub, without the comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def read_public(line: str, where: str) -> ec.EllipticCurvePublicKey:
    """Read the line of a file .pub, or raise ConfigError where it is no key on P-384."""
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: no public key in OpenSSH's form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{where}: the key must be EC P-384, as gliofed-client join makes it")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Write a key's fingerprint as `ssh-keygen -lf` shows it."""
    return "SHA256:" + base64.b64encode(ssh_key_fingerprint(key, SHA256())).decode().rstrip("=")


def sign_bytes(key: ec.EllipticCurvePrivateKey, data: bytes) -> str:
    """Sign with ECDSA and SHA-384; base64."""
    return base64.b64encode(key.sign(data, ec.ECDSA(SHA384()))).decode()


def is_signed(key: ec.EllipticCurvePublicKey, signature: str, data: bytes) -> bool:
    """Whether `sign_bytes` made the signature with this key's other half."""
    try:
        key.verify(base64.b64decode(signature, validate=True), data, ec.ECDSA(SHA384()))
    except (InvalidSignature, ValueError):  # no base64, or not even ASCII
        return False
    return True


def read_authority(pem: bytes, where: str) -> x509.Certificate:
    """Read the certificate of an authority, or raise ConfigError."""
    with suppress(ValueError, x509.ExtensionNotFound):
        certificate = x509.load_pem_x509_certificate(pem)
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return certificate
    raise ConfigError(f"{where}: no certificate of an authority")


def certificate_sha256(certificate: x509.Certificate) -> str:
    """Hash the certificate, in hexadecimal: 64 digits."""
    return certificate.fingerprint(SHA256()).hex()


def own_certificate(key: ec.EllipticCurvePrivateKey, address: str) -> x509.Certificate:
    """Sign a certificate of this key with itself, for the IP address of a server whose clients are given it.

    It holds for good: a machine's clock may be set meanwhile.
    """
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    public = key.public_key()
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(signer, critical=False)
        .sign(key, SHA384())
    )


def pairs(sha256: str) -> str:
    """Write a hash in pairs, as openssl shows a certificate's fingerprint.

    >>> pairs("0a1b2c")
    '0A:1B:2C'
    """
    return ":".join(sha256[at : at + 2] for at in range(0, len(sha256), 2)).upper()


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that no other user could read at any moment; it is whole, or the old one."""
    write_bytes(path, data, mode=0o600)
