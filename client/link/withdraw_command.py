"""gliofed-client withdraw: a patient withdrew consent."""

from pathlib import Path

from client.link.site_file import read_site
from client.round.policy import DeclinedError
from client.round.withdraw import Withdrawal, withdraw
from shared.chain import BusyError
from shared.data.volume import DataError
from shared.files import absolute
from shared.parse import ConfigError
from shared.site_config import SiteConfig
from shared.terminal import plain

LEFT = 1


def withdraw_command(patient: str, folder: Path) -> int:
    """Withdraw, and say what became of it; 1 where files of others in the work folder still name the patient.

    `folder` is the hospital's or its work folder. Raises ConfigError where it is neither, or knows no such patient.
    """
    try:
        done = withdraw(_site(folder), patient)
    except (DataError, DeclinedError, BusyError) as error:
        raise ConfigError(f"{error}; then withdraw {patient} again") from None
    for line in _lines(done, patient):
        print(plain(line))
    return LEFT if done.left else 0


def _site(folder: Path) -> SiteConfig:
    folder = absolute(folder)
    if (folder / "site.yaml").exists():
        return read_site(folder)
    if not any((folder / name).exists() for name in ("cohort", "consent.json")):
        raise ConfigError(f"{folder}: no hospital's folder and no work folder; give one of them")
    return SiteConfig(name="withdraw", root="", labels="", work=str(folder))


def _lines(done: Withdrawal, patient: str) -> list[str]:
    lines = [f"{patient} is withdrawn: {done.entries} entries of the cache and {done.replies} stored replies removed"]
    lines += [f"removed, for it named {patient}: {path}" for path in done.reports]
    lines += [f"trained with {patient}: run {run}; tell its aggregator" for run in done.runs]
    lines += [f"may have trained with {patient}: run {run}, of an earlier version" for run in done.unknown]
    lines += [] if done.runs or done.unknown else [f"no run trained with {patient}"]
    return lines + [
        f"still names {patient}: {path}; remove it, or take it out of the work folder" for path in done.left
    ]
