"""The server's audit log of a run, a chain of its own: requests, replies, and what was made of them."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from gliofed.server.round.run_keys import RunKeys
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import Chain, hold_chain
from gliofed.shared.keys import public_line
from gliofed.shared.messages import Reply, Request
from gliofed.shared.signatures import NO_RECEIPT, holds, sign

WAIT = 1.0  # seconds: `status` holds it for a moment


class RunAudit:
    """The audit log of one run; every line is on disk before its method returns."""

    def __init__(self, log: Chain, keys: RunKeys | None = None) -> None:
        """Write to a log that is held. Without keys, as in a simulation, nothing is signed."""
        self._log, self._keys, self._run_id = log, keys, ""
        self._signers: dict[str, ec.EllipticCurvePublicKey] = {}
        """Whose key each site's last reply was signed with."""

    def log_start(self, event: str, run_id: str, config_hash: str) -> None:
        """Log a start or a resume."""
        self._run_id = run_id
        self._log.append({"event": event, "run_id": run_id, "config_hash": config_hash})

    def log_requests(self, kind: str, request: Request, sites: Sequence[str]) -> list[Request]:
        """Log who is about to be asked, from which weights; return each one's request, with the log's head, signed."""
        about = {"kind": kind, "round": request.round, "config_hash": request.config.hash}
        about["weights"] = request.weights_sha256
        about |= {"part": request.part} if request.part else {}
        parents = [request.parents.get(site, "") for site in sites]
        each = [{"site": s, **({"parent": p} if p else {})} for s, p in zip(sites, parents, strict=True)]
        head = self._log.append(*({"event": "request", **about, **own} for own in each))
        requests = [replace(request, head=head, parent=parent) for parent in parents]
        if self._keys is None:
            return requests
        lines = [{**about, "run_id": request.run_id, "server_head": head, **own} for own in each]
        signatures = [sign(self._keys.key, "request", line) for line in lines]
        return [
            replace(asked, certificate=self._keys.certificate, signature=signature)
            for asked, signature in zip(requests, signatures, strict=True)
        ]

    def is_signed(self, kind: str, round: int, site: str, reply: Reply) -> bool:
        """Whether a reply is signed with the key that its site is admitted with, where sites have keys.

        The site could write no log where the reply says so; then it has no signature either.
        """
        if self._keys is None:
            return True
        if not reply.head and reply.code in NO_RECEIPT:
            return not reply.signature
        key = self._keys.of_site(site)
        line = {**self._line(kind, round, site, reply), "run_id": self._run_id}
        if key is None or not holds(key, reply.signature, "reply", line):
            return False
        self._signers[site] = key
        return True

    def log_reply(self, kind: str, round: int, site: str, reply: Reply) -> None:
        """Log a reply, with the site's head and signature that came with it, and before the first one its key."""
        line = self._line(kind, round, site, reply)
        if not reply.signature or self._keys is None:
            self._log.append(line)
            return
        key = {"event": "signer", "site": site, "key": public_line(self._signers[site])}
        known = any(key["key"] in each for each in self._log.lines)
        self._log.append(*([] if known else [key]), {**line, "signature": reply.signature})

    def _line(self, kind: str, round: int, site: str, reply: Reply) -> dict[str, Any]:
        about = {"event": "reply", "kind": kind, "round": round, "site": site, "head": reply.head or None}
        claims = {"status": reply.status, "code": reply.code, "patients": reply.patients}
        update = {"bytes": len(reply.update), "sha256": reply.update_sha256}
        return {**about, **claims, **update, **({"records": reply.records} if reply.records else {})}

    def log_absence(self, kind: str, round: int, site: str, status: str, reason: str) -> None:
        """Log that there is no reply, or none that can be read, and why."""
        about = {"event": "absent", "kind": kind, "round": round, "site": site}
        self._log.append({**about, "status": status, "reason": reason})

    def log_fold(self, round: int, sites: Sequence[str], weights: bytes, **other: bytes) -> None:
        """Log the sites whose updates counted and the weights that came of them, before they are saved; and what is
        `asked` from, with groups, and the `result`, an average, where these are other bytes.

        A server that dies in between folds the same updates again, and logs that again.
        """
        line = {"event": "fold", "round": round, "sites": list(sites), "weights": hashlib.sha256(weights).hexdigest()}
        others = {name: hashlib.sha256(data).hexdigest() for name, data in other.items() if data != weights}
        self._log.append(line | others)

    def log_end(self, status: str) -> None:
        """Log the end."""
        self._log.append({"event": "end", "status": status})


@contextmanager
def hold_audit(out: Path, keys: RunKeys | None = None) -> Iterator[RunAudit]:
    """Hold the audit log of the run in `out`, as long as the server works on it; or raise ConfigError."""
    with hold_chain(audit_file(out), WAIT) as log:
        yield RunAudit(log, keys)
