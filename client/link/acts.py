"""Who did what at a hospital, and when: lines of its audit log, which has all that was asked and left as well."""

from pathlib import Path
from typing import Any

from gliofed.client.link.site_file import work_of
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import hold_chain
from gliofed.shared.processes import user_name

WAIT = 10.0
"""Seconds for the line of a request: writing one takes milliseconds."""


def note_act(folder: Path, act: str, **about: Any) -> None:
    """Note an act with its time and user, before it is done where that can wait. Raises as `hold_chain` does.

    `act` is code_approved, approval_withdrawn, started or ended.
    """
    with hold_chain(audit_file(work_of(folder)), WAIT) as log:
        log.append({"event": act, "user": user_name(), **about})
