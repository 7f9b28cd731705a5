"""Which nodes the SuperLink lets in: those with an admitted site's key, and no others."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from server.link.control import Control, Node, key_bytes
from server.provisioning.admit import readable_keys
from shared.keys import read_public
from shared.parse import ConfigError


@dataclass(frozen=True, kw_only=True)
class Member:
    """An admitted site's node."""

    node: int
    online: bool
    seen: str | None
    """When it was last online; ISO 8601. None: never."""


def tend_members(control: Control, folder: Path) -> tuple[dict[str, Member], list[str]]:
    """Register who was admitted and shut out who was expelled; return the members by site, and what was done.

    Raises ControlError; and ConfigError over a damaged record, after the other sites are let in. Until it is mended
    nobody is shut out, for it may be the record of any node.
    """
    paths, faults = readable_keys(folder)
    keys = {key_bytes(read_public(path.read_text(), str(path))): site for site, path in paths.items()}
    members: dict[str, Member] = {}
    said = []
    for node in control.nodes():
        if (site := keys.get(node.public_key)) is not None:
            members[site] = Member(node=node.id, online=node.online, seen=_seen(node))
        elif not faults:
            control.unregister(node.id)
            said.append(f"node {node.id}: shut out, for its key is no admitted site's; it was expelled or replaced")
    for key, site in keys.items():
        if site not in members:
            members[site] = Member(node=control.register(key, site), online=False, seen=None)
            said.append(f"{site}: may connect")
    if faults:
        raise ConfigError("; ".join(faults))
    return dict(sorted(members.items())), said


def _seen(node: Node) -> str | None:
    if node.online:
        return datetime.now(UTC).isoformat(timespec="seconds")
    return node.ended or None
