"""The site's audit log as the hospital's own people meet it: what they did, and how the site answered."""

from pathlib import Path
from typing import Any

from gliofed.client.link.site_file import work_of
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.chain import begun, hold_chain
from gliofed.shared.processes import user_name
from gliofed.shared.site_config import SiteConfig

WAIT = 10.0
"""Seconds for the line of a request: writing one takes milliseconds."""


def note_act(folder: Path, act: str, **about: Any) -> None:
    """Note an act with its time and user, before it is done where that can wait. Raises as `hold_chain` does.

    `act` is code_approved, approval_withdrawn, started or ended.
    """
    with hold_chain(audit_file(work_of(folder)), WAIT) as log:
        log.append({"event": act, "user": user_name(), **about})


def events_of(site: SiteConfig) -> list[dict[str, Any]]:
    """All events of the site's audit log, the oldest first. Raises ConfigError where a line does not hold."""
    file = audit_file(Path(site.work))
    return read_audit(file).events() if begun(file) else []


def reason_of(receipt: dict[str, Any]) -> str | None:
    """Say why the site did not do what it was asked, and None where it did."""
    if receipt["status"] == "ok":
        return None
    from gliofed.shared.messages import CODES  # Flower takes a second to load

    return CODES.get(str(receipt["code"]), str(receipt["code"]))  # of a later version, perhaps


def refusal(site: SiteConfig, receipt: dict[str, Any]) -> str | None:
    """One sentence of a receipt's request that the site did not do; None where it did."""
    reason = reason_of(receipt)
    about = receipt["kind"] + (f" of round {receipt['round']}" if receipt["round"] is not None else "")
    return reason and f"{about} {receipt['status']}: {reason}; the detail is in {site.folder.log}"
