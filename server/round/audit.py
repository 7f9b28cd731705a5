"""What the server notes of a run, in a chain of its own: what was asked, what came back, and what was made of it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from shared.audit import audit_file
from shared.chain import BusyError, Chain, hold_chain
from shared.codec import weights_to_bytes
from shared.messages import Reply, Request
from shared.parse import ConfigError


class RunAudit:
    """The audit log of one run; every line is on disk before its method returns."""

    def __init__(self, log: Chain) -> None:
        """Write to a log that is held."""
        self._log = log

    def began(self, event: str, run_id: str, config_hash: str) -> None:
        """Note a start or a resume."""
        self._log.append({"event": event, "run_id": run_id, "config_hash": config_hash})

    def asked(self, kind: str, request: Request, sites: Sequence[str]) -> str:
        """Note who is about to be asked, from which weights; return the head that goes with the requests."""
        about = {"event": "request", "kind": kind, "round": request.round, "config_hash": request.config.hash}
        about["weights"] = request.weights_sha256
        return self._log.append(*({**about, "site": site} for site in sites))

    def answered(self, kind: str, round: int, site: str, reply: Reply) -> None:
        """Note a reply, with the site's head that came with it."""
        about = {"event": "reply", "kind": kind, "round": round, "site": site, "head": reply.head or None}
        told = {"status": reply.status, "code": reply.code, "patients": reply.patients}
        update = {"bytes": len(reply.update), "sha256": hashlib.sha256(reply.update).hexdigest()}
        self._log.append({**about, **told, **update})

    def absent(self, kind: str, round: int, site: str, status: str, reason: str) -> None:
        """Note that there is no reply, or none that can be read, and why."""
        about = {"event": "absent", "kind": kind, "round": round, "site": site}
        self._log.append({**about, "status": status, "reason": reason})

    def folded(self, round: int, sites: Sequence[str], weights: Mapping[str, Tensor]) -> None:
        """Note the sites whose updates counted and the weights that came of them, before they are saved.

        A server that dies in between folds the same updates again, and notes that again.
        """
        sha256 = hashlib.sha256(weights_to_bytes(weights)).hexdigest()
        self._log.append({"event": "fold", "round": round, "sites": list(sites), "weights": sha256})

    def ended(self, status: str) -> None:
        """Note the end."""
        self._log.append({"event": "end", "status": status})


@contextmanager
def hold_audit(out: Path) -> Iterator[RunAudit]:
    """Hold the audit log of the run in `out`, as long as the server works on it; or raise ConfigError."""
    try:
        with hold_chain(audit_file(out)) as log:
            yield RunAudit(log)
    except BusyError as error:
        raise ConfigError(f"{error}; wait until it ends") from None
