"""What the `audit` commands of both ends have in common."""

from collections.abc import Iterable
from pathlib import Path

from gliofed.shared.audit import audit_file
from gliofed.shared.chain import REDACTED, Chain, begun, redact
from gliofed.shared.files import absolute
from gliofed.shared.parse import ConfigError
from gliofed.shared.signatures import Trust, What, check_signatures
from gliofed.shared.terminal import UserError, plain, tell
from gliofed.shared.wording import quantity

FAILED = 1
"""Exit status: a line does not hold."""


class NoLogError(UserError):
    """There is no log in the place that was given."""


def find_audit(place: Path, hint: str) -> Path:
    """The log of a work folder or a run's, of an audit folder, or the file itself. Raises NoLogError with the hint."""
    try:
        place = absolute(place)
    except ConfigError as error:
        raise NoLogError(str(error)) from None
    if place.is_file():
        return place
    for file in (audit_file(place), place / "audit.jsonl"):
        if begun(file):
            return file
    raise NoLogError(f"{place}: no audit log there; give {hint}")


def audit_status(program: str, sentences: Iterable[str]) -> int:
    """Print each sentence as it comes; return the exit status, FAILED after one of the line that does not hold."""
    try:
        for sentence in sentences:
            print(plain(sentence))
        return 0
    except ConfigError as error:
        tell(program, str(error))
        return FAILED


def describe(log: Chain, what: What, trust: Trust) -> list[str]:
    """What there is to say of a log that holds: how long it is, and what is signed. Raises ConfigError."""
    redacted = sum(event.get("event") == REDACTED for event in log.events())
    hidden = f", {redacted} of them redacted" if redacted else ""
    about = f"{log.file}: {quantity(len(log.lines), 'line holds', 'lines hold')}{hidden}; head {log.head}"
    return [about, check_signatures(log, what, trust)]


def copy_for(log: Chain, site: str) -> list[str]:
    """The lines of a run's log for one of its sites: its own ones, and the others redacted. Raises ConfigError.

    Whole are also lines of no site, of the run's start and end, and of a node that had not told its name.
    """
    lines, names = [], set()
    for number, (line, event) in enumerate(zip(log.lines, log.events(), strict=True), start=1):
        name = str(event.get("site"))
        names.add(name)
        own = name == site or name.startswith("node-") or event.get("event") in ("start", "resume", "end", REDACTED)
        copied = line if own else redact(line)
        if copied is None:
            why = "is of an earlier version and has no salt: what it says could be guessed from its hash"
            raise ConfigError(f"{log.file}: line {number} {why}; no copy without other sites can be made")
        lines.append(copied)
    if site not in names:
        raise NoLogError(f"{log.file}: no line of {site}; give the site's name as it was admitted")
    return lines
