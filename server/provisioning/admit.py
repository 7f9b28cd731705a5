"""gliofed-server admit and expel: which hospital's key may connect."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from server.provisioning.certificates import load_authority
from server.provisioning.federation import open_federation
from shared.files import write_bytes, write_json
from shared.join_request import read_request
from shared.keys import certificate_sha256, fingerprint, public_line, read_public
from shared.parse import ConfigError, Strict, is_site_name, parse

TOLD = 12
"""Characters of a fingerprint that are compared at least: 72 bits, more than anybody can look for another key with."""
KIND = "SHA256:"


@dataclass(frozen=True, kw_only=True)
class Earlier(Strict):
    """A key that a site had once; it is never admitted again."""

    fingerprint: str
    admitted: str
    ended: str
    """Time, ISO 8601, when it was expelled or replaced."""


@dataclass(frozen=True, kw_only=True)
class SiteRecord(Strict):
    """What sites/SITE/site.json says."""

    fingerprint: str
    """Of key.pub beside it."""
    admitted: str
    """Time, ISO 8601."""
    expelled: str | None = None
    """Time, ISO 8601; None: the site may connect."""
    earlier: tuple[Earlier, ...] = ()


def admit(path: Path, folder: Path, told: str, replaces: bool = False, now: datetime | None = None) -> list[str]:
    """Admit the hospital whose request this is, if its key has the fingerprint that the hospital `told`.

    The fingerprint's beginning will do: TOLD characters. Raises ConfigError.
    """
    federation, authority = open_federation(folder), load_authority(folder)
    request, key = read_request(path)
    if request.federation != federation.name:
        raise ConfigError(f"{path}: for the federation {request.federation}, but this is {federation.name}")
    if authority is None or request.ca_sha256 != certificate_sha256(authority.certificate):
        raise ConfigError(f"{path}: from a kit of another authority; send the hospital its kit again")
    site = request.site
    if site not in federation.sites:
        raise ConfigError(f"{path}: {site} is not in federation.yaml; its sites are {', '.join(federation.sites)}")
    mark, time = fingerprint(key), (now or datetime.now(UTC)).isoformat(timespec="seconds")
    records = site_records(folder)
    for other, record in records.items():
        if other != site and mark in (record.fingerprint, *(each.fingerprint for each in record.earlier)):
            raise ConfigError(f"{path}: this key is {other}'s; every hospital makes its own, with its own kit")
    _compare(path, mark, told)
    old = records.get(site)
    if old and old.fingerprint == mark and old.expelled is None:
        said = [f"{site}: admitted before, on {old.admitted}"]
    else:
        _refuse_key(path, old, mark, replaces)
        earlier = (*old.earlier, _ended(old, time)) if old else ()
        record = SiteRecord(fingerprint=mark, admitted=time, earlier=earlier)
        write_json(_record_path(folder, site), asdict(record))
        said = [f"{site}: admitted, with the key {mark}"]
    # Last, and each time: after a crash between the two files, admitting again mends it.
    write_bytes(_key_path(folder, site), f"{public_line(key)} {site}\n".encode())
    return said


def expel(site: str, folder: Path, now: datetime | None = None) -> list[str]:
    """Shut a hospital out; its record stays. Raises ConfigError."""
    open_federation(folder)
    record = site_records(folder).get(site)
    if record is None:
        raise ConfigError(f"{site}: was never admitted in {folder.resolve()}")
    if record.expelled is not None:
        return [f"{site}: expelled before, on {record.expelled}"]
    time = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    write_json(_record_path(folder, site), asdict(replace(record, expelled=time)))
    return [f"{site}: expelled; to let it in again, it joins anew and is admitted with --replace"]


def admitted(folder: Path) -> dict[str, Path]:
    """Find key.pub of each site that may connect, in the order of names; ConfigError over a damaged record."""
    found, faults = readable_keys(folder)
    if faults:
        raise ConfigError(faults[0])
    return found


def readable_keys(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Find key.pub of each site that may connect, as far as that can be told, and what is wrong with other records."""
    found, faults = {}, []
    for path in _record_paths(folder):
        site, key = path.parent.name, _key_path(folder, path.parent.name)
        try:
            record = _read_record(path)
            if record.expelled is None:
                line = key.read_text(errors="replace") if key.exists() else ""
                if fingerprint(read_public(line, str(key))) != record.fingerprint:
                    raise ConfigError(f"{key}: not the key of site.json; admit the site's request again")
                found[site] = key
        except ConfigError as error:
            faults.append(str(error))
    return found, faults


def _compare(path: Path, mark: str, told: str) -> None:
    """Before the key is let in, for whoever can change e-mails can change the request as well."""
    said = "".join(told.split()).removeprefix(KIND)
    if len(said) < TOLD:
        raise ConfigError(f"the fingerprint: give {TOLD} characters or more of what follows {KIND}")
    if not mark.removeprefix(KIND).startswith(said):
        cure = "do not admit it, but ask the hospital for its request on another way"
        raise ConfigError(f"{path}: its key has not the fingerprint that the hospital told; {cure}")


def _refuse_key(path: Path, old: SiteRecord | None, mark: str, replaces: bool) -> None:
    if old is None:
        return
    if mark in {each.fingerprint for each in old.earlier} | {old.fingerprint}:
        raise ConfigError(f"{path}: this key was expelled or replaced; the hospital joins again, for a new key")
    if not replaces:
        state = "was expelled" if old.expelled else "is admitted with another key"
        raise ConfigError(f"{path}: the site {state}, {old.fingerprint}; --replace takes the new one, for ever")


def _ended(old: SiteRecord, time: str) -> Earlier:
    return Earlier(fingerprint=old.fingerprint, admitted=old.admitted, ended=old.expelled or time)


def site_records(folder: Path) -> dict[str, SiteRecord]:
    """Read site.json of every site that was ever admitted; ConfigError over a damaged one."""
    return {path.parent.name: _read_record(path) for path in _record_paths(folder)}


def _record_paths(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "sites").glob("*/site.json") if is_site_name(path.parent.name))


def _read_record(path: Path) -> SiteRecord:
    try:
        return parse(SiteRecord, path.read_text(errors="replace"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _record_path(folder: Path, site: str) -> Path:
    return folder / "sites" / site / "site.json"


def _key_path(folder: Path, site: str) -> Path:
    return folder / "sites" / site / "key.pub"
