"""gliofed-server admit and expel: which hospital's key may connect."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from gliofed.server.provisioning.certificates import load_authority
from gliofed.server.provisioning.federation import open_federation
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.audit import events_of, note_act
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.join_request import JoinRequest, PatientCeiling, check_patients, read_request
from gliofed.shared.keys import certificate_sha256, fingerprint, pairs, public_line, read_public
from gliofed.shared.kit import kit_sha256
from gliofed.shared.parse import ConfigError, Strict, is_site_name, parse
from gliofed.shared.wording import quantity

SHORTEST_FINGERPRINT = 12
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
    patients: PatientCeiling | None = None
    """Agreed ceiling of its number of patients. None: admitted by a version before numbers were agreed."""

    def ended(self) -> set[str]:
        """Fingerprints of keys that may not connect any more."""
        return {each.fingerprint for each in self.earlier} | ({self.fingerprint} if self.expelled else set())


def admit(
    path: Path,
    folder: Path,
    compared: str,
    replaces: bool = False,
    *,
    patients: int | None = None,
    now: datetime | None = None,
) -> list[str]:
    """Admit the hospital whose request this is, if its key has the fingerprint `compared` by telephone.

    The fingerprint's first SHORTEST_FINGERPRINT characters will do. `patients` is the agreed ceiling; None: what was
    agreed with this site before, or else what the request states. Raises ConfigError.
    """
    request, key = _read_request(path, folder)
    site = request.site
    mark, time = fingerprint(key), (now or datetime.now(UTC)).isoformat(timespec="seconds")
    records, faults = read_records(folder)
    fault = faults.pop(site, None)
    if fault and FederationFolder(folder).record(site).exists():  # one that is missing is made anew
        raise ConfigError(fault)
    for other, record in records.items():
        if other != site and mark in (record.fingerprint, *(each.fingerprint for each in record.earlier)):
            raise ConfigError(f"{path}: this key is {other}'s; every hospital makes its own, with its own kit")
    _compare(path, mark, compared)
    old = records.get(site)
    if old and old.fingerprint == mark and old.expelled is None:
        agreed = _agreed(path, patients, old.patients, request.patients)
        record = replace(old, patients=agreed)
        messages = [f"{site}: admitted before, on {old.admitted}, now with at most {quantity(agreed, 'patient')}"]
    else:
        _refuse_key(path, old, mark, replaces)
        _refuse_kit(path, folder, request)
        earlier = (*old.earlier, _ended(old, time)) if old else ()
        agreed = _agreed(path, patients, old.patients if old else None, request.patients)
        record = SiteRecord(fingerprint=mark, admitted=time, earlier=earlier, patients=agreed)
        messages = [f"{site}: admitted, with the key {mark} and at most {quantity(agreed, 'patient')}"]
        if patients is None and request.patients not in (None, agreed):
            messages.append(f"{site}: its request states {request.patients}; --patients {request.patients} takes that")
    if record != old:
        about = {"fingerprint": mark, "patients": record.patients, "replaces": bool(old and old.fingerprint != mark)}
        note_act(folder, "admitted", site=site, **about)
        write_json(FederationFolder(folder).record(site), asdict(record))
    # Last, and each time: after a crash between the two files, admitting again mends it.
    write_bytes(FederationFolder(folder).key(site), f"{public_line(key)} {site}\n".encode())
    if fault:
        messages.append(f"{site}: its record was missing; which keys it had before is not known any more")
    return messages + [
        f"{fault}; whether the new key was ever {other}'s is not known" for other, fault in faults.items()
    ]


def expel(site: str, folder: Path) -> list[str]:
    """Shut a hospital out; its record stays. Raises ConfigError."""
    open_federation(folder)
    records, faults = read_records(folder)
    if site in faults:
        raise ConfigError(f"{faults[site]}; or remove {folder / 'sites' / site}, which shuts it out as well")
    record = records.get(site)
    if record is None:
        raise ConfigError(f"{site}: was never admitted in {folder.resolve()}")
    if record.expelled is not None:
        return [f"{site}: expelled before, on {record.expelled}"]
    time = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(FederationFolder(folder).record(site), asdict(replace(record, expelled=time)))
    messages = [f"{site}: expelled; to let it in again, it joins anew and is admitted with --replace"]
    try:  # last, for no hospital must stay in for want of a line
        note_act(folder, "expelled", site=site, fingerprint=record.fingerprint)
    except (ConfigError, OSError) as error:
        messages.append(f"{site}: expelled, and that is not in the federation's audit log: {_sentence(error)}")
    return messages


def read_records(folder: Path) -> tuple[dict[str, SiteRecord], dict[str, str]]:
    """Read site.json of every site that was ever admitted; return also what is wrong with the others', by site."""
    records: dict[str, SiteRecord] = {}
    faults: dict[str, str] = {}
    sites = FederationFolder(folder).sites
    for place in sorted(sites.iterdir()) if sites.exists() else ():  # a glob hides that it may not look
        if is_site_name(site := place.name) and place.is_dir():
            path = FederationFolder(folder).record(site)
            try:
                records[site] = parse(SiteRecord, path.read_text(errors="replace"))
            except FileNotFoundError:  # while somebody restores it, say
                faults[site] = f"{path}: missing; restore it from a copy, or admit the site's request again"
            except (OSError, ConfigError) as error:
                faults[site] = f"{path}: {_sentence(error)}; restore it from a copy"
    return records, faults


def admitted_keys(
    folder: Path, records: Mapping[str, SiteRecord]
) -> tuple[dict[str, ec.EllipticCurvePublicKey], dict[str, str]]:
    """Read key.pub of each site that may connect; return also what is wrong with the others', by site."""
    keys: dict[str, ec.EllipticCurvePublicKey] = {}
    faults: dict[str, str] = {}
    for site, record in records.items():
        if record.expelled is None:
            path = FederationFolder(folder).key(site)
            try:
                key = read_public(path.read_text(errors="replace"), str(path))
                if fingerprint(key) != record.fingerprint:
                    raise ConfigError(f"{path}: not the key of site.json")
                keys[site] = key
            except OSError as error:
                faults[site] = f"{path}: {_sentence(error)}; admit the site's request again"
            except ConfigError as error:
                faults[site] = f"{error}; admit the site's request again"
    return keys, faults


def _read_request(path: Path, folder: Path) -> tuple[JoinRequest, ec.EllipticCurvePublicKey]:
    """Read a request, with its key, or refuse one that is not for this federation."""
    federation, authority = open_federation(folder), load_authority(folder)
    request, key = read_request(path)
    if request.federation != federation.name:
        raise ConfigError(f"{path}: for the federation {request.federation}, but this is {federation.name}")
    if request.ca_sha256 != certificate_sha256(authority.certificate):
        raise ConfigError(f"{path}: from a kit of another authority; send the hospital its kit again")
    if request.site not in federation.sites:
        known = ", ".join(federation.sites)
        raise ConfigError(f"{path}: {request.site} is not in federation.yaml; its sites are {known}")
    return request, key


def _agreed(path: Path, given: int | None, *known: int | None) -> int:
    """The number of patients that --patients gives, or else the first that is known."""
    if given is not None:
        return check_patients(given)
    agreed = next((number for number in known if number is not None), None)
    if agreed is None:
        cure = "agree on one by telephone, and give it with --patients N"
        raise ConfigError(f"{path}: of an older version, without a number of patients; {cure}")
    return agreed


def _compare(path: Path, mark: str, given: str) -> None:
    """Before the key is let in, for whoever can change e-mails can change the request as well."""
    beginning = "".join(given.split()).removeprefix(KIND)
    if len(beginning) < SHORTEST_FINGERPRINT:
        raise ConfigError(f"the fingerprint: give {SHORTEST_FINGERPRINT} characters or more of what follows {KIND}")
    if not mark.removeprefix(KIND).startswith(beginning):
        cure = "do not admit it, but ask the hospital for its request on another way"
        raise ConfigError(f"{path}: its key has not the fingerprint that the hospital told; {cure}")


def _refuse_key(path: Path, old: SiteRecord | None, mark: str, replaces: bool) -> None:
    if old is None:
        return
    if mark in {each.fingerprint for each in old.earlier} | {old.fingerprint}:
        raise ConfigError(f"{path}: this key was expelled or replaced; the hospital has to join again, with a new key")
    if not replaces:
        state = "was expelled" if old.expelled else "is admitted with another key"
        raise ConfigError(f"{path}: the site {state}, {old.fingerprint}; --replace accepts the new one for good")


def _refuse_kit(path: Path, folder: Path, request: JoinRequest) -> None:
    """Refuse a hospital whose kit is none of ours; an older version does not say which one it was."""
    if request.kit_sha256 is not None and request.kit_sha256 not in made_kits(folder, request.site):
        cure = (
            "it was altered on its way; send the kit again, by another channel, and let the hospital join anew with it"
        )
        raise ConfigError(f"{path}: it joined with a kit that was not made here, {pairs(request.kit_sha256)}: {cure}")


def made_kits(folder: Path, site: str) -> set[str]:
    """Hashes of all the kits that were ever made for a site, as far as is known. Raises ConfigError, and OSError."""
    kit = FederationFolder(folder).kit(site)
    made = {kit_sha256(kit.read_bytes())} if kit.exists() else set()
    for event in events_of(folder):
        if event["event"] == "provisioned":
            made |= {kits[site] for kits in (event["kits"], event["replaced"]) if site in kits}
    return made


def _ended(old: SiteRecord, time: str) -> Earlier:
    return Earlier(fingerprint=old.fingerprint, admitted=old.admitted, ended=old.expelled or time)


def _sentence(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
