"""Where audit logs are, and whether a site's and a server's agree: each notes the other's head in its own chain."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gliofed.shared.chain import REDACTED, Chain, begun, head_file, hold_chain, read_chain, read_head
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import user_name
from gliofed.shared.signatures import NO_RECEIPT, records_sha256
from gliofed.shared.terminal import print_with_time
from gliofed.shared.wording import quantity

Event = dict[str, Any]
WAIT = 10.0
"""Seconds for the line of another process: writing one takes milliseconds."""
_OF = {"kind", "round", "site"}
AT_SITE = {
    "request": {"kind", "round", "run_id", "server_head"},
    "receipt": {*_OF, "run_id", "status", "code", "patients"},
}
AT_SERVER = {
    "start": {"run_id"},
    "resume": {"run_id"},
    "request": _OF,
    "absent": _OF,
    "reply": {*_OF, "status", "code", "patients", "bytes", "sha256", "head"},
}
"""What a line of each kind has at least, each a text, a number or nothing."""


def audit_file(folder: Path) -> Path:
    """The audit log of a site's work folder, or of a run's."""
    return folder / "audit" / "audit.jsonl"


def read_audit(file: Path, alone: bool = False) -> Chain:
    """Verify a log, or raise ConfigError with the first line that does not hold.

    `alone`: it is a copy, which may have come without its head.json.
    """
    head = None if alone and not head_file(file).exists() else read_head(head_file(file))
    return read_chain(file, "", head)


def events_of(folder: Path) -> list[Event]:
    """All events of a folder's log, the oldest first; none before it is begun. Raises ConfigError as `read_audit`."""
    file = audit_file(folder)
    return read_audit(file).events() if begun(file) else []


def note_act(folder: Path, act: str, **about: Any) -> None:
    """Note in a folder's log what somebody does, before it is done where that can wait. Raises ConfigError, OSError."""
    with hold_chain(audit_file(folder), WAIT) as log:
        log.append({"event": act, "user": user_name(), **about})


def note_or_print(folder: Path, act: str) -> None:
    """Note a service's start or end; a damaged log, or a full disk, must not keep anybody out, and is printed."""
    try:
        note_act(folder, act)
    except ConfigError as error:
        why = str(error)
    except OSError as error:
        why = f"{error.filename or audit_file(folder)}: {error.strerror}"
    else:
        return
    print_with_time(f"{act}, but this is not in the audit log: {why}")


def compare(site: Chain, server: Chain) -> str:
    """Hold a site's log and a server's, both verified, against each other.

    Every line must name one of the other log; one that was cut off, or written anew, lacks it. A request must have
    come as it was sent, and a reply as its receipt says; of a reply that the server does not note it must say that
    none came. Returns how much agrees and what did not come, or raises ConfigError with the first line that does not.
    """
    _check_lines(site, AT_SITE)
    _check_lines(server, AT_SERVER)
    lines = server.events()
    runs = {event["run_id"] for event in lines if event["event"] in ("start", "resume")}
    asked = [(number, event) for number, event in _numbered(site) if event.get("run_id") in runs]
    names = {event["site"] for _, event in asked if event["event"] == "receipt"}
    if not names:
        raise ConfigError(f"{site.file}: no reply to the run of {server.file}")
    replies, bare = _replies(names, site, server)
    requests = _requests(names, asked, site, server)
    both = f"{quantity(replies, 'reply', 'replies')} and {quantity(requests, 'request')}"
    agree = f"{', '.join(sorted(names))}: {both} agree with {server.file}"
    gone = _sentence(_lost(asked, site, server))
    return agree + gone + (f"; {bare} came without a receipt, for the site could not write its log" if bare else "")


def noted_head(path: Path, server: Chain) -> str:
    """Say of which reply a site's head.json is, or raise ConfigError: it tells of no line that the server noted."""
    _check_lines(server, AT_SERVER)
    head = read_head(path)["hash"]
    for number, event in reversed(_numbered(server)):
        if event["event"] == "reply" and event["head"] == head:
            about = f"{event['site']}'s reply to {event['kind']} of round {event['round']}"
            return f"{path}: its log ends with {about}, line {number} of {server.file}"
    raise ConfigError(f"{path}: its last line is not in {server.file}; ask for the site's audit.jsonl")


def _sentence(lost: list[Event]) -> str:
    """What left the site and was not noted: an update matters more than a few bytes that say that the site is free."""
    if not lost:
        return ""
    sizes = [sum(each["bytes"] for each in event["records"] if isinstance(each.get("bytes"), int)) for event in lost]
    alike = Counter((size, str(event["kind"]), str(event["round"])) for size, event in zip(sizes, lost, strict=True))
    parts = [
        f"{kind} of round {round}, {quantity(size, 'byte')}" + (f" ({count} times)" if count > 1 else "")
        for (size, kind, round), count in sorted(alike.items(), reverse=True)
    ]
    usual = "as is usual after a stop or a lost connection"
    return f"; {len(lost)} more left the site, of which the server notes no answer, {usual}: {'; '.join(parts)}"


def _check_lines(chain: Chain, has: Mapping[str, set[str]]) -> None:
    """Refuse a line that lacks what all of its kind have: a log may come from the very party that is to be checked."""
    for number, event in _numbered(chain):
        if event.get("event") == REDACTED:
            continue
        keys = {"event", *has.get(str(event.get("event")), ())}
        lacks = [key for key in keys if not isinstance(event.get(key, ()), str | int | float | None)]
        if event.get("event") == "receipt" and not _has_update(event.get("records")):
            lacks.append("records")
        if lacks:
            raise ConfigError(
                f"{chain.file}: line {number} lacks {', '.join(sorted(lacks))}, which every such line has"
            )


def _has_update(records: object) -> bool:
    """Whether a receipt tells of the update; an empty one is told of too."""
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        return False
    return any({"bytes", "sha256"} <= each.keys() for each in records if each.get("name") == "update/bytes")


def _replies(names: set[str], site: Chain, server: Chain) -> tuple[int, int]:
    """Replies of the site that the server noted, each as its receipt says; and those that can have no receipt."""
    lines = [(number, line) for number, line in _numbered(server) if line["event"] == "reply" and line["site"] in names]
    replies = [(number, line) for number, line in lines if line["head"] or line["code"] not in NO_RECEIPT]
    receipts = site.events()
    for number, event, place in _with_places(replies, "head", server, site):
        receipt = receipts[place - 1]
        if receipt["event"] != "receipt" or any(
            event.get(key, value) != value for key, value in _reported(receipt).items()
        ):
            raise ConfigError(f"{server.file}: line {number} is not the reply of line {place} of {site.file}")
    return len(replies), len(lines) - len(replies)


def _with_places(
    events: Iterable[tuple[int, Event]], head: str, log: Chain, other: Chain
) -> Iterator[tuple[int, Event, int]]:
    """Add to each event of a log the number of the other log's line whose hash it notes as `head`."""
    places = _places(other)
    for number, event in events:
        if not event[head]:
            raise ConfigError(f"{log.file}: line {number} is a {event['event']} that names no line of {other.file}")
        if not (place := places.get(event[head])):  # unknown, or the root, which is no line
            raise ConfigError(f"{log.file}: line {number} notes a line that {other.file} does not have")
        yield number, event, place


def _reported(receipt: Event) -> Event:
    """What the server's line of the same reply must say as well."""
    update = next(record for record in receipt["records"] if record.get("name") == "update/bytes")
    reported = {key: receipt[key] for key in ("site", "status", "code", "patients")}
    if receipt["round"] is not None:  # else the request could not be read
        reported |= {key: receipt[key] for key in ("kind", "round")}
    left = {"records": records_sha256(receipt["records"])}  # earlier versions of the server do not note it
    return reported | left | {"bytes": update["bytes"], "sha256": update["sha256"]}


def _requests(names: set[str], asked: Iterable[tuple[int, Event]], site: Chain, server: Chain) -> int:
    """Requests that the site noted; each must be one that the server noted for it, with the same weights."""
    requests, lines = [(number, line) for number, line in asked if line["event"] == "request"], server.events()
    for number, event, place in _with_places(requests, "server_head", site, server):
        if not any(_same(event, line, names) for line in _sent_together(lines, place)):
            raise ConfigError(f"{site.file}: line {number} is not the request of line {place} of {server.file}")
    return len(requests)


def _sent_together(lines: list[Event], place: int) -> Iterable[Event]:
    """The server's lines of requests up to this place; sites that are asked together get the head of the last one.

    Those of others may be redacted.
    """
    while place and lines[place - 1]["event"] in ("request", REDACTED):
        if lines[place - 1]["event"] == "request":
            yield lines[place - 1]
        place -= 1


def _same(asked: Event, line: Event, names: set[str]) -> bool:
    """Whether a site's line and a server's are of one request; a node is asked to prepare before it has a name."""
    named = line["site"] in names or (line["kind"] == "prepare" and line["site"].startswith("node-"))
    return named and all(
        asked.get(key) == line.get(key) for key in ("kind", "round", "config_hash", "weights", "parent")
    )


def _lost(asked: Iterable[tuple[int, Event]], site: Chain, server: Chain) -> list[Event]:
    """Receipts of which the server has no reply; it must say that none came, or not have gone on since."""
    places, lines, place, lost = _places(server), server.events(), 0, list[Event]()
    heads = {line["head"] for line in lines if line["event"] == "reply"}
    for number, event in asked:
        if event["event"] == "request":
            place = places[event["server_head"]]
        if event["event"] != "receipt" or site.hashes[number] in heads:
            continue
        lost.append(event)
        if not _excused(event, place, lines):
            raise ConfigError(f"{site.file}: line {number} is a reply that {server.file} lacks, and it went on without")
    return lost


def _excused(receipt: Event, place: int, lines: list[Event]) -> bool:
    """Whether an honest server, which asked at this place of its log, may not have noted the reply of a receipt."""
    of = {key: receipt[key] for key in ("kind", "round", "site")}
    if any(line["event"] == "absent" and of.items() <= line.items() for line in lines):
        return True  # it says that none came, or came too late
    again = {"event": "request", "round": of["round"], "site": of["site"]}
    if of["kind"] == "prepare" and sum(again.items() <= line.items() for line in lines[:place]) > 1:
        return True  # it asked whether the site is free, and then had the answer that it waited for
    for line in lines[place:]:
        if line["event"] == "resume":
            return True  # it died before it could
        other = line["event"] == "request" and (line["kind"], line["round"]) != (of["kind"], of["round"])
        if line["event"] in ("fold", "end") or (other and line["kind"] != "prepare"):
            return False
    return True  # it may yet


def _places(chain: Chain) -> dict[str, int]:
    """Number of the line with each hash; 0 is the root."""
    return {hash: place for place, hash in enumerate(chain.hashes)}


def _numbered(chain: Chain) -> list[tuple[int, Event]]:
    return list(enumerate(chain.events(), start=1))
