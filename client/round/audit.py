"""What a site notes of every message, in a chain of its own: what was asked, what was decided, and what left.

No line names a patient or a file. `work/audit/audit.jsonl` has, for each message,

    request   what was asked, by which run, SHA-256 of the weights, the server's head and its signature
    decision  accepted by the policy, with the reading of the data where it is a new one; or declined or failed, with
              the code
    receipt   of all that left: of each record its name, type, size and SHA-256, and what was told in numbers

and besides `code_refused`, with the hash of code that nobody here approved, `error_sent`, with the number by which
Flower says that the program of a request ended without a reply, `smaller_patch`, where a round was trained with less
than was asked for, `trained_on`, with the hash of the list of those whom a run trains with, and `withdrawn`, with the
pseudonym of a patient, the user who did it and the runs that trained with them, or `readmitted`, where that was a
mistake.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from gliofed.client.round.policy import DeclinedError
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import Chain, hold_chain
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import ConfigError
from gliofed.shared.signatures import holds, records_sha256, server_key, sign
from gliofed.shared.site_config import SiteConfig

WAIT = 10.0  # seconds for another message's line: writing one takes milliseconds


@dataclass(frozen=True)
class SiteKeys:
    """What a site's replies are signed with, and whose requests it answers."""

    key: ec.EllipticCurvePrivateKey
    authority: x509.Certificate


class Audit:
    """One message at one site. Its methods raise DeclinedError `audit` where the log cannot be written."""

    def __init__(self, site: SiteConfig, kind: str, keys: SiteKeys | None = None) -> None:
        """`kind` is prepare, train or evaluate. Without keys, as in a simulation, nothing is signed."""
        self._site, self._noted, self._keys = site, False, keys
        self._about: dict[str, Any] = {"kind": kind, "run_id": None, "round": None}
        self._asked: dict[str, Any] = {"event": "request", **self._about, "site": site.name}
        self._asked |= {"config_hash": None, "weights": None, "server_head": None}

    def identify(self, request: Request) -> None:
        """Record what a request is, for all lines that follow; nothing is written yet."""
        self._about |= {"run_id": request.run_id, "round": request.round}
        self._asked |= {**self._about, "config_hash": request.config.hash, "server_head": request.head or None}
        self._asked["weights"] = request.weights_sha256
        self._asked |= {name: value for name in ("parent", "part") if (value := getattr(request, name))}

    def is_signed(self, request: Request, now: datetime) -> bool:
        """Whether the server signed this request, with a certificate in force; true without keys."""
        if self._keys is None:
            return True
        key = server_key(request.certificate, self._keys.authority, now)
        return key is not None and holds(key, request.signature, "request", self._asked)

    def came_before(self, request: Request, log: Chain) -> bool:
        """Whether a signed request names the same line of the server's log: that has one for each time that it asks."""
        return self._keys is not None and any(request.head in line and '"signature"' in line for line in log.lines)

    @contextmanager
    def recording(self, request: Request) -> Iterator[tuple[Chain, list[dict[str, Any]]]]:
        """Hold the log while a request is judged; then write it, whatever came of it, and the lines that were added."""
        with hold_log(self._site) as log:
            lines = [self._asked]
            if self._keys is not None:
                self._asked["signature"] = request.signature
                if not any(request.certificate in line for line in log.lines):  # once in a log
                    lines.insert(0, {"event": "signer", "certificate": request.certificate})
            try:
                yield log, lines
            finally:
                log.append(*lines)
                self._noted = True

    def receipt(self, reply: Reply, leaving: list[dict[str, Any]]) -> str:
        """Note what leaves, before it does; return the hash of that line, which goes with the reply as its head."""
        line = {"event": "receipt", **self._about, "metrics": sorted(reply.metrics), "records": leaving}
        line |= {"part": part} if (part := self._asked.get("part")) else {}
        line |= {key: getattr(reply, key) for key in ("site", "status", "code", "patients", "left_out", "epsilon")}
        line["told"] = {name: value if isfinite(value) else None for name, value in reply.metrics.items()}
        events = [] if self._noted else [self._asked]  # it could not be read, or not be noted when it came
        if reply.status != "ok":
            events.append(self.decision(reply.status, reply.code))
        with hold_log(self._site) as log:
            return log.append(*events, line)

    def sign(self, reply: Reply, leaving: list[dict[str, Any]], head: str) -> str:
        """Sign what leaves, with the receipt's hash; empty without keys."""
        if self._keys is None:
            return ""
        update = next(part for part in leaving if part["name"] == "update/bytes")
        line = {**self._about, "site": reply.site, "status": reply.status, "code": reply.code, "head": head}
        line |= {"patients": reply.patients, "bytes": update["bytes"], "sha256": update["sha256"]}
        return sign(self._keys.key, "reply", line | {"records": records_sha256(leaving)})

    def decision(self, decision: str, code: str) -> dict[str, Any]:
        """Return the line of a decision."""
        return {"event": "decision", **self._about, "decision": decision, "code": code}


def note(site: SiteConfig, event: Mapping[str, Any]) -> None:
    """Note something that is no request, decision or receipt. Raises DeclinedError `audit`."""
    with hold_log(site) as log:
        log.append(event)


@contextmanager
def hold_log(site: SiteConfig) -> Iterator[Chain]:
    """Hold the site's log for reading and writing. Raises DeclinedError `audit`."""
    file = audit_file(site.folder.root)
    try:
        with hold_chain(file, WAIT) as log:
            yield log
    except ConfigError as error:
        raise DeclinedError("audit", str(error)) from None
    except OSError as error:
        where = error.filename or file
        raise DeclinedError("audit", f"{where}: {error.strerror}; fix it: nothing leaves until then") from None


def rounds_since(log: Chain, since: datetime) -> int:
    """Rounds that the policy accepted after `since`, and that were not answered from what was stored."""
    return sum(
        event["event"] == "decision"
        and (event["kind"], event["decision"]) == ("train", "accepted")
        and not event["stored"]
        and datetime.fromisoformat(event["time"]) > since
        for event in log.events()
    )
