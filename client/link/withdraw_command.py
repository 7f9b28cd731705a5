"""gliofed-client withdraw: a patient withdrew consent, or did so by mistake."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unicodedata import normalize

from gliofed.client.doctor.manifest import ANEW
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.site_file import read_site
from gliofed.client.round.policy import DeclinedError
from gliofed.client.round.withdraw import Withdrawal, readmit, withdraw
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import absolute
from gliofed.shared.locks import BusyError
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.terminal import plain
from gliofed.shared.wording import quantity
from gliofed.shared.work_folder import WorkFolder

LEFT = 1


def withdraw_command(patient: str, folder: Path, yes: bool = False) -> int:
    """Ask, unless `yes`; withdraw, and say what became of it; 1 where a file in the work folder still names them.

    `folder` is the hospital's or its work folder. Raises ConfigError where it is neither, or knows no such patient, and
    where nobody agrees.
    """
    site = _site(folder)
    _ask(patient, f"{patient} is never used again, and what {site.work} has of them is removed", yes)
    with _mendable(f"withdraw {patient}"):
        done = withdraw(site, patient)
    for line in _lines(done, patient):
        print(plain(line))
    return LEFT if done.left or done.same else 0


def undo_command(patient: str, folder: Path, yes: bool = False) -> int:
    """Ask, unless `yes`, and take a withdrawal back; 0. Raises ConfigError as `withdraw_command` does."""
    site = _site(folder)
    _ask(patient, f"the withdrawal of {patient} is taken back", yes)
    with _mendable(f"take back the withdrawal of {patient}"):
        readmit(site, patient)
    print(plain(f"the withdrawal of {patient} is taken back; to use their scans again, {ANEW}"))
    return 0


def _ask(patient: str, what: str, yes: bool) -> None:
    """Have the id typed again: nobody is withdrawn in the place of another."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{patient}: nobody to ask; give --yes")
    print(plain(f"{what}."))
    try:
        typed = input("To agree, type the id again: ")
    except EOFError:
        typed = ""
    if normalize("NFC", typed.strip()) != normalize("NFC", patient):
        raise ConfigError(f"{patient}: nothing was done, because another id was typed")


@contextmanager
def _mendable(act: str) -> Iterator[None]:
    try:
        yield
    except (DataError, DeclinedError, BusyError) as error:
        raise ConfigError(f"{error}; then {act} again") from None


def _site(folder: Path) -> SiteConfig:
    folder = absolute(folder)
    if HospitalFolder(folder).settings.exists():
        return read_site(folder)
    if not (WorkFolder(folder).cohort.exists() or WorkFolder(folder).consent.exists()):
        raise ConfigError(f"{folder}: no hospital's folder and no work folder; give one of them")
    return SiteConfig(name="withdraw", root="", labels="", work=str(folder))


def _lines(done: Withdrawal, patient: str) -> list[str]:
    entries = quantity(done.entries, "entry of the cache", "entries of the cache")
    replies = quantity(done.replies, "stored reply", "stored replies")
    lines = [f"{patient} is withdrawn: {entries} and {replies} removed"]
    lines += [
        f"removed what this site kept from run {run}: while the run goes on, its aggregator can let this site start "
        "anew (gliofed-server anew); a finished model that lacks norms cannot be used here any more"
        for run in done.states
    ]
    lines += [f"removed, because it named or may show {patient}: {path}" for path in done.reports]
    lines += [
        f"{name} has the same scans as {patient}: if it is the same person, withdraw {name} as well"
        for name in done.same
    ]
    lines += [f"trained with {patient}: run {run}; tell its aggregator" for run in done.runs]
    lost = "whose list of patients is missing or damaged"
    lines += [f"may have trained with {patient}: run {run}, {lost}" for run in done.unknown]
    if not done.runs and not done.unknown:
        lines.append(
            f"no run trained with {patient}; means over validation or test patients may have included this one"
        )
    for path in done.left:
        cure = ANEW if path.parent.name == "cohort" else "remove it, or take it out of the work folder"
        lines.append(f"still names {patient}: {path}; {cure}")
    return lines
