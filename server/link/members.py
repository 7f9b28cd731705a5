"""Which nodes the SuperLink lets in: those with an admitted site's key, and no others."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gliofed.server.link.control import Control, ControlError, Node, SilentError, key_bytes
from gliofed.server.provisioning.admit import admitted_keys, read_records
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.keys import fingerprint

CURE = (
    "where its key was shut out by mistake, end gliofed-server start, remove link/state.db, which has "
    "Flower's messages alone, and start again"
)


@dataclass(frozen=True, kw_only=True)
class Member:
    """An admitted site's node."""

    node: int
    online: bool
    seen: str | None
    """When it was last online; ISO 8601. None: never."""
    patients: int | None = None
    """Agreed ceiling of its number of patients. None: none was agreed."""


def sync_members(
    control: Control, folder: Path, before: Mapping[str, Member]
) -> tuple[dict[str, Member], list[str], list[str]]:
    """Register who was admitted and shut out who was expelled; return the members by site, what was done and faults.

    A fault is one site's. While a record is damaged, or all are gone, only those are shut out of whom another says so:
    it may be the record of any node, and Flower never takes a key again that it has shut out. Whose site.json cannot
    be read stays what it was `before`. Raises ControlError.
    """
    records, damaged = read_records(folder)
    found, wrong = admitted_keys(folder, records)
    keys = {key_bytes(key): site for site, key in found.items()}
    known = {member.node: site for site, member in before.items() if site in damaged}
    ended = {mark for record in records.values() for mark in record.ended()}
    members: dict[str, Member] = {}
    changes, faults = [], [*damaged.values(), *wrong.values()]
    for node in control.nodes():
        if (site := keys.get(node.public_key, known.get(node.id))) is not None:
            agreed = records[site].patients if site in records else before[site].patients
            members[site] = Member(node=node.id, online=node.online, seen=_seen(node), patients=agreed)
        elif (not faults and FederationFolder(folder).sites.exists()) or _fingerprint(node) in ended:
            control.unregister(node.id)
            changes.append(f"node {node.id}: shut out: its key is not an admitted site's, or was expelled or replaced")
    for key, site in keys.items():
        if site not in members:
            try:
                node_id, agreed = control.register(key, site), records[site].patients
                members[site] = Member(node=node_id, online=False, seen=None, patients=agreed)
                changes.append(f"{site}: may connect")
            except SilentError:
                raise
            except ControlError as error:
                faults.append(f"{site}: cannot be let in ({error}); {CURE}")
    return dict(sorted(members.items())), changes, faults


def _fingerprint(node: Node) -> str:
    key = load_pem_public_key(node.public_key)
    return fingerprint(key) if isinstance(key, ec.EllipticCurvePublicKey) else ""


def _seen(node: Node) -> str | None:
    if node.online:
        return datetime.now(UTC).isoformat(timespec="seconds")
    return node.ended or None
