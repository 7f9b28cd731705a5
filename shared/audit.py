"""Where audit logs are, and whether a site's and a server's agree: each notes the other's head in its own chain."""

from pathlib import Path
from typing import Any

from shared.chain import Chain, begun, head_file, read_chain, read_head
from shared.parse import ConfigError


def audit_file(folder: Path) -> Path:
    """The audit log of a site's work folder, or of a run's."""
    return folder / "audit" / "audit.jsonl"


def find_audit(place: Path) -> Path | None:
    """The log of a work folder or a run's, of an audit folder, or the file itself; None where there is none."""
    if place.is_file():
        return place
    return next((file for file in (audit_file(place), place / "audit.jsonl") if begun(file)), None)


def read_audit(file: Path, alone: bool = False) -> Chain:
    """Verify a log, or raise ConfigError with the first line that does not hold.

    `alone`: it is a copy, which may have come without its head.json.
    """
    head = None if alone and not head_file(file).exists() else read_head(head_file(file))
    return read_chain(file, "", head)


def compare(site: Chain, server: Chain) -> str:
    """Hold a site's log and a server's, both verified, against each other.

    Every head that one noted of the other must be a line there; a log that was cut off, or written anew, lacks it. A
    reply must have arrived as its receipt says. Returns how much agrees, or raises ConfigError with the first line that
    does not.
    """
    runs = {event["run_id"] for event in server.events() if event["event"] in ("start", "resume")}
    asked = [(number, event) for number, event in _numbered(site) if event.get("run_id") in runs]
    names = {event["site"] for _, event in asked if event["event"] == "receipt"}
    if not names:
        raise ConfigError(f"{site.file}: no reply to the run of {server.file}")
    replies = sum(_replies(name, site, server) for name in sorted(names))
    lines, requests = set(server.hashes[1:]), 0
    for number, event in asked:
        if event["event"] == "request" and event["server_head"] is not None:
            requests += 1
            if event["server_head"] not in lines:
                raise ConfigError(f"{site.file}: line {number} notes a line that {server.file} does not have")
    return f"{', '.join(sorted(names))}: {replies} replies and {requests} requests agree with {server.file}"


def noted_head(path: Path, server: Chain) -> str:
    """Say of which reply a site's head.json is, or raise ConfigError: it tells of no line that the server noted."""
    head = read_head(path)["hash"]
    for number, event in reversed(_numbered(server)):
        if event["event"] == "reply" and event["head"] == head:
            about = f"{event['site']}'s reply to {event['kind']} of round {event['round']}"
            return f"{path}: its log ends with {about}, line {number} of {server.file}"
    raise ConfigError(f"{path}: its last line is none that {server.file} notes; ask for the site's audit.jsonl")


def _replies(name: str, site: Chain, server: Chain) -> int:
    """Replies of the site that the server noted; each must be as its receipt says."""
    places, receipts, replies = {hash: place for place, hash in enumerate(site.hashes)}, site.events(), 0
    for number, event in _numbered(server):
        if event["event"] != "reply" or event["site"] != name or not event["head"]:
            continue
        replies += 1
        place = places.get(event["head"])
        if not place:  # unknown, or the root, which is no line
            raise ConfigError(f"{server.file}: line {number} notes a line that {site.file} does not have")
        receipt = receipts[place - 1]
        if receipt["event"] != "receipt" or _told(receipt) != {key: event[key] for key in _told(receipt)}:
            raise ConfigError(f"{server.file}: line {number} is not the reply of line {place} of {site.file}")
    return replies


def _told(receipt: dict[str, Any]) -> dict[str, Any]:
    """What the server's line of the same reply must say as well."""
    update = next(record for record in receipt["records"] if record["name"] == "update/bytes")
    told = {key: receipt[key] for key in ("status", "code", "patients")}
    return told | {"bytes": update["bytes"], "sha256": update["sha256"]}


def _numbered(chain: Chain) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(chain.events(), start=1))
