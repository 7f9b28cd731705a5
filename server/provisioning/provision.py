"""gliofed-server provision and renew: a federation's authority, certificates and kits."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from gliofed.server.provisioning.certificates import (
    Authority,
    ending_soon,
    load_authority,
    make_authority,
    stale,
    write_certificate,
)
from gliofed.server.provisioning.federation import FederationConfig, open_federation, read_federation
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.server.provisioning.kit_texts import readme, site_yaml
from gliofed.shared.audit import note_act
from gliofed.shared.code import build_code
from gliofed.shared.files import write_bytes
from gliofed.shared.keys import certificate_sha256, pairs
from gliofed.shared.kit import Kit, kit_sha256, pack, read_kit
from gliofed.shared.parse import ConfigError
from gliofed.shared.signatures import LINK_NAMES
from gliofed.shared.terminal import command_line


def provision(file: Path, into: Path | None = None, now: datetime | None = None) -> list[str]:
    """Make what is missing of a federation's folder, and say what was done.

    Run again, it keeps the authority for ever and everything else that still fits. Raises ConfigError.
    """
    now = now or datetime.now(UTC)
    federation = read_federation(file)
    folder = into or _folder_of(file, federation.name)
    authority, messages = _authority(folder, federation, now)
    files = FederationFolder(folder)
    messages += _server_certificates(folder, federation, authority, now)
    # After them: without ca.key there may be none for the new names, and `start` takes no others.
    write_bytes(files.settings, file.read_bytes())
    code, before = build_code(), _kit_hashes(folder)
    write_bytes(files.code, code)
    done = [_kit(folder, federation, site, authority, code, now) for site in federation.sites]
    kits = _kit_hashes(folder)
    messages += [f"{each}; hash {pairs(kits[site])}" for each, site in zip(done, federation.sites, strict=True)]
    for site in sorted(path.name for path in files.sites.glob("*") if path.name not in federation.sites):
        expel = command_line("gliofed-server", "expel", site, "--folder", folder)
        messages.append(f"sites/{site}: no longer in {files.settings.name}; to shut it out, run {expel}")
    replaced = {site: sha256 for site, sha256 in before.items() if kits.get(site) != sha256}
    about = {"code_sha256": hashlib.sha256(code).hexdigest(), "kits": kits, "replaced": replaced}
    note_act(folder, "provisioned", **about, done=messages)
    return messages + ending_soon(folder, now)


def renew(folder: Path, now: datetime | None = None) -> list[str]:
    """Make new server certificates with the same authority, whatever the old ones are. Raises ConfigError."""
    federation = open_federation(folder)
    now = now or datetime.now(UTC)
    messages = _server_certificates(folder, federation, load_authority(folder), now, reason="as asked")
    note_act(folder, "renewed", done=messages)
    return messages


def _folder_of(file: Path, name: str) -> Path:
    """Name the folder beside the file; for the copy in a federation's folder that folder, not one inside."""
    parent = file.resolve().parent
    files = FederationFolder(parent)
    return parent if files.ca.exists() and file.name == files.settings.name else parent / name


def _authority(folder: Path, federation: FederationConfig, now: datetime) -> tuple[Authority, list[str]]:
    files = FederationFolder(folder)
    known = open_federation(folder).name if files.settings.exists() else None
    if known not in (None, federation.name):
        raise ConfigError(f"name={federation.name}: {folder} is the folder of {known}; give another with --into")
    if known is not None or files.authority.exists() or files.authority_key.exists():
        return load_authority(folder), ["ca: kept"]
    authority = make_authority(folder, federation.name, now)
    return authority, [f"ca: made, ends on {authority.certificate.not_valid_after_utc:%Y-%m-%d}; take ca.key offline"]


def _server_certificates(
    folder: Path, federation: FederationConfig, authority: Authority, now: datetime, reason: str | None = None
) -> list[str]:
    messages = []
    for name, hosts in (("server", federation.hosts), ("link", LINK_NAMES)):
        path = FederationFolder(folder).certificate(name)
        why = reason or stale(path, authority, hosts, now)
        if why:
            write_certificate(path, authority, hosts, federation.days, now)
        done = f"made for {', '.join(hosts)} ({why})" if why else "kept"
        messages.append(f"server/{name}.crt: {done}")
    return messages


def _kit_hashes(folder: Path) -> dict[str, str]:
    """The hash of each site's kit, as it is now."""
    return {path.stem: kit_sha256(path.read_bytes()) for path in sorted(FederationFolder(folder).kits.glob("*.zip"))}


def _kit(
    folder: Path, federation: FederationConfig, site: str, authority: Authority, code: bytes, now: datetime
) -> str:
    """Make a site's kit, unless the one that is there says the same."""
    path = FederationFolder(folder).kit(site)
    kit = Kit(
        federation=federation.name,
        site=site,
        address=federation.address,
        ca_sha256=certificate_sha256(authority.certificate),
        code_sha256=hashlib.sha256(code).hexdigest(),
        made=now.isoformat(timespec="seconds"),
    )
    texts = authority.certificate.public_bytes(Encoding.PEM), code, site_yaml(site), readme(kit)
    try:
        old = read_kit(path)[0] if path.exists() else None
    except ConfigError:
        old = None
    if old and path.read_bytes() == pack(replace(kit, made=old.made), *texts):
        return f"kits/{site}.zip: kept"
    write_bytes(path, pack(kit, *texts))
    if not (FederationFolder(folder).sites / site).exists():
        return f"kits/{site}.zip: made; send it to the hospital"
    if old and old.code_sha256 != kit.code_sha256:
        return f"kits/{site}.zip: made anew; the site has joined: send it code.fab, to be approved"
    return f"kits/{site}.zip: made anew; the site has joined and needs it only to join again"
