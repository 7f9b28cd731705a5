"""Signatures in audit logs: each end signs what it sends, and the other keeps the signature in its own log.

So a log convinces a third person, who knows the public keys, of what the other end sent. A hospital signs with the key
with which it was admitted; the server with that of link.crt, of which the authority in every kit says that it is the
SuperLink's: its names are LINK_NAMES, which no certificate has that hospitals connect to. A log has the
other end's key in a line `signer` before the first line that is signed with it. Simulations have no keys, and earlier
versions signed nothing.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from gliofed.shared.chain import Chain
from gliofed.shared.keys import fingerprint, is_signed, read_authority, read_public, sign_bytes
from gliofed.shared.kit import read_kit
from gliofed.shared.parse import ConfigError

What = Literal["request", "reply"]
"""What is signed: the server's request, in a site's log; or a site's reply, in the server's."""
FIELDS = {
    "request": "kind run_id round site config_hash weights server_head".split(),
    "reply": "kind run_id round site status code patients bytes sha256 records head".split(),
}
"""Of a log's line, what the signature covers; a server's line has its run's id from the line `start`."""
NO_RECEIPT = ("audit", "config")
"""Codes of replies without receipt and signature: the site could not write its log, or does not know where it is."""
LINK_NAMES = ("127.0.0.1", "localhost")
"""Of the SuperLink, which only the proxy on the same machine reaches, and so of the certificate that signs requests."""
_SERVER = "the server"


def sign(key: ec.EllipticCurvePrivateKey, what: What, line: Mapping[str, Any]) -> str:
    """Sign a line of the other end's log, as `sign_bytes` does."""
    return sign_bytes(key, _signed(what, line))


def holds(key: ec.EllipticCurvePublicKey, signature: str, what: What, line: Mapping[str, Any]) -> bool:
    """Whether a line's signature is of this key."""
    lines = [line]
    if what == "reply" and line.get("code") == "protocol":  # the site could not read of which run and round it was
        lines.append({**line, "run_id": None, "round": None})
    return any(is_signed(key, signature, _signed(what, each)) for each in lines)


def records_sha256(parts: Iterable[Any]) -> str:
    """Hash what `gliofed.shared.messages.describe_records` says of a reply; the records' order is lost on the way."""
    return hashlib.sha256("\n".join(sorted(json.dumps(part, sort_keys=True) for part in parts)).encode()).hexdigest()


def server_key(certificate: str, authority: x509.Certificate | None, at: datetime) -> ec.EllipticCurvePublicKey | None:
    """Give the key of a certificate (DER, base64) with which this authority's server may sign requests at some time.

    None: it is of another authority, not of its SuperLink, not in force then, or no certificate.
    """
    try:
        found = x509.load_der_x509_certificate(base64.b64decode(certificate, validate=True))
        if authority is not None:
            found.verify_directly_issued_by(authority)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = found.public_key()
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    signs = sorted(str(name.value) for name in names) == sorted(LINK_NAMES)
    in_force = found.not_valid_before_utc <= at <= found.not_valid_after_utc
    return key if isinstance(key, ec.EllipticCurvePublicKey) and signs and in_force else None


@dataclass(frozen=True)
class Trust:
    """The keys that somebody has from elsewhere than the log."""

    authority: x509.Certificate | None = None
    sites: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Fingerprints of each site's keys."""


def read_trust(files: Iterable[Path], known: Trust = Trust()) -> Trust:  # it is frozen
    """Add to what is known: an authority's certificate, alone or in a kit, or public keys with a site's name each.

    Raises ConfigError, and OSError.
    """
    authority, sites = known.authority, {site: {*marks} for site, marks in known.sites.items()}
    for file in files:
        content = file.read_bytes()
        if content.startswith(b"PK"):
            content = read_kit(file)[1]["ca.crt"]
        if content.startswith(b"-----BEGIN CERTIFICATE"):
            authority = read_authority(content, str(file))
            continue
        for line in content.decode(errors="replace").splitlines():
            name = line.split(" ")[2].split("@")[0] if line.count(" ") == 2 else ""
            if not name:
                raise ConfigError(f"{file}: must be a ca.crt, a kit, or public keys with the site's name after each")
            sites.setdefault(name, set()).add(fingerprint(read_public(line, str(file))))
    return Trust(authority, sites)


def check_signatures(log: Chain, what: What, trust: Trust) -> str:
    """Verify the signatures of a log of what the other end sent; say with which keys how much is signed.

    After the first line of a signer every such line must be signed. Raises ConfigError with the first that is not.
    """
    keys: dict[str, list[ec.EllipticCurvePublicKey]] = {}
    signed: Counter[tuple[str, str]] = Counter()
    unsigned, run_id, events = 0, None, log.events()
    for number, event in enumerate(events, start=1):
        where = f"{log.file}: line {number}"
        owner = str(event.get("site")) if what == "reply" else _SERVER
        if event.get("event") in ("start", "resume"):
            run_id = event.get("run_id")
        elif event.get("event") == "signer":
            keys.setdefault(owner, []).append(_signer(event, what, owner, trust, where))
        elif event.get("event") == what and _claims(what, events[number - 1 : number + 1]):
            line = {**event, "run_id": run_id} if what == "reply" else event
            signature, known = str(line.get("signature") or ""), keys.get(owner, ())
            if key := next((each for each in known if holds(each, signature, what, line)), None):
                signed[owner, fingerprint(key)] += 1
            elif signature or known:
                marks = ", ".join(map(fingerprint, known)) or "any key in the log"
                raise ConfigError(f"{where}: this {what} is not signed by {owner}, with {marks}; it may be made up")
            else:
                unsigned += 1
    return _sentence(log, what, trust, signed, unsigned)


def _signed(what: What, line: Mapping[str, Any]) -> bytes:
    """What a signature covers; its first line keeps it from being taken for anything else."""
    values = {name: line.get(name) for name in FIELDS[what]}
    # Of a run in which sites keep something, and of a test.
    values |= {name: line[name] for name in ("parent", "part") if name in line}
    return f"gliofed {what}\n".encode() + json.dumps(values, sort_keys=True).encode()


def _claims(what: What, lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a line, the first of these, says that the other end sent something: a site notes also what it refused,
    and a server that a site could write no log.
    """
    if what == "reply":
        return bool(lines[0].get("head")) or lines[0].get("code") not in NO_RECEIPT
    accepted = len(lines) > 1 and (lines[1].get("event"), lines[1].get("decision")) == ("decision", "accepted")
    return accepted or bool(lines[0].get("signature"))


def _signer(event: Mapping[str, Any], what: What, owner: str, trust: Trust, where: str) -> ec.EllipticCurvePublicKey:
    if what == "request":
        time = str(event.get("time"))
        try:
            key = server_key(str(event.get("certificate")), trust.authority, datetime.fromisoformat(time))
        except (ValueError, TypeError):  # no time, or one without its zone
            key = None
        if key is None:
            must = "not of the federation's authority, or not its SuperLink's, or not in force at"
            raise ConfigError(f"{where}: a certificate that is {must} {time}")
        return key
    key = read_public(str(event.get("key")), where)
    known = trust.sites.get(owner)
    if known is not None and fingerprint(key) not in known:
        cure = f"known are {', '.join(sorted(known))}; if it is an earlier one, give it with --keys"
        raise ConfigError(f"{where}: {fingerprint(key)} is not {owner}'s key; {cure}")
    return key


def _sentence(log: Chain, what: What, trust: Trust, signed: Counter[tuple[str, str]], unsigned: int) -> str:
    noun, parts = {"request": "requests", "reply": "replies"}[what], list[str]()
    for (owner, mark), count in sorted(signed.items()):
        sure = trust.authority is not None if what == "request" else owner in trust.sites
        doubt = "" if sure else " (is that its key? compare it, or give --keys)"
        parts.append(f"{noun} of {owner} signed with {mark}: {count}{doubt}")
    if unsigned:
        parts.append(f"unsigned {noun}, which prove nothing to anybody else: {unsigned}")
    return f"{log.file}: {'; '.join(parts) or f'no {noun} yet'}"
