"""The authority and the server's certificates: what a TLS client believes, what ends, and what is made anew."""

import shutil
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from small_federation import NOW, again, provisioned
from tls_handshake import handshake

from gliofed.server.provisioning.certificates import ending_soon, load_authority, stale, write_certificate
from gliofed.server.provisioning.provision import renew
from gliofed.shared.parse import ConfigError


@pytest.mark.parametrize("name", ["localhost", "fl.example.org", "10.1.2.3"])
def test_tls_believes_the_right_names(made: Path, name: str) -> None:
    handshake(made / "server/server.crt", made / "ca/ca.crt", name)


def test_tls_refuses_wrong_name_and_wrong_authority(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(made / "server/server.crt", made / "ca/ca.crt", "evil.example.org")
    handshake(made / "server/link.crt", made / "ca/ca.crt", "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):  # the proxy's names are not the SuperLink's
        handshake(made / "server/link.crt", made / "ca/ca.crt", "fl.example.org")
    other = provisioned(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(made / "server/server.crt", other / "ca/ca.crt", "localhost")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees(made: Path) -> None:
    paths = [str(made / name) for name in ("ca/ca.crt", "server/server.crt", "server/link.crt")]
    words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", *paths]
    subprocess.run(words, check=True, capture_output=True)


def test_ends_soon(folder: Path) -> None:
    assert ending_soon(folder, NOW + timedelta(days=794)) == []
    soon, late = NOW + timedelta(days=800), NOW + timedelta(days=830)
    assert [" ends on " in line for line in ending_soon(folder, soon)] == [True, True]
    assert all(" ended on " in line and "gliofed-server renew" in line for line in ending_soon(folder, late))
    assert sum("the old one ends on" in line for line in again(folder, now=soon)) == 2
    assert ending_soon(folder, soon) == []


def test_authority_that_ends(folder: Path) -> None:
    """No certificate outlasts it, and afterwards none is made."""
    renew(folder, NOW + timedelta(days=3640))
    last = x509.load_pem_x509_certificate((folder / "server/server.crt").read_bytes()).not_valid_after_utc
    authority = load_authority(folder)
    assert last == authority.certificate.not_valid_after_utc
    assert "ca/ca.crt ends on" in ending_soon(folder, NOW + timedelta(days=3640))[0]
    with pytest.raises(ConfigError, match="ended on"):
        renew(folder, NOW + timedelta(days=3660))


def test_renew(folder: Path) -> None:
    before, authority = (folder / "server/server.crt").read_bytes(), (folder / "ca/ca.crt").read_bytes()
    assert len(renew(folder)) == 2
    assert (folder / "server/server.crt").read_bytes() != before
    assert (folder / "ca/ca.crt").read_bytes() == authority
    handshake(folder / "server/server.crt", folder / "ca/ca.crt", "localhost")


def test_killed_between_key_and_certificate(folder: Path) -> None:
    """The pair does not fit then, and the next provision mends it."""
    authority = load_authority(folder)
    old = (folder / "server/server.crt").read_bytes()
    write_certificate(folder / "server/server.crt", authority, ["localhost"], 31, NOW)
    (folder / "server/server.crt").write_bytes(old)
    assert stale(folder / "server/server.crt", authority, ("x",), NOW) == "the old one had another key"
    assert any("another key" in line for line in again(folder))
    handshake(folder / "server/server.crt", folder / "ca/ca.crt", "localhost")


@pytest.mark.parametrize("lost", [["ca.crt"], ["ca.key", "ca.crt"]])
def test_authority_is_never_made_anew(folder: Path, lost: list[str]) -> None:
    for name in lost:
        (folder / "ca" / name).unlink()
    left = sorted(path.name for path in (folder / "ca").iterdir())
    with pytest.raises(ConfigError, match=r"missing.*restore it from a copy"):
        again(folder)
    assert sorted(path.name for path in (folder / "ca").iterdir()) == left


def test_authority_of_another_key(folder: Path) -> None:
    (folder / "ca/ca.key").write_bytes((folder / "server/server.key").read_bytes())
    with pytest.raises(ConfigError, match=r"not the key of ca\.crt"):
        again(folder)
