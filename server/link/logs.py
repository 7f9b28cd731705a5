"""gliofed-server stop and logs."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from gliofed.server.link.control import key_bytes
from gliofed.server.link.proxy import logged_key
from gliofed.server.link.runs import Run, find_run, runs_of
from gliofed.server.provisioning.federation import open_federation
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.audit import note_act
from gliofed.shared.keys import read_public
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import plain

LINES = 40
"""Last lines of each of the link's logs."""
POLL = 0.5  # seconds between two looks at a log that grows


def stop(folder: Path, name: str | None) -> list[str]:
    """Let a run end where it is, the one that runs unless it is named; say so. Raises ConfigError."""
    open_federation(folder)
    run = find_run(folder, name) if name else _current(folder)
    state, _ = run.state()
    if state not in ("waiting", "running"):
        raise ConfigError(f"{run.name}: it is {state}; only a run that waits or runs can be stopped")
    note_act(folder, "run_stopped", run=run.name)
    run.want("stop")
    return [f"{run.name}: will stop; go on with {run.resume_command}"]


def logs(folder: Path, name: str | None, follow: bool, sleep: Callable[[float], None] = time.sleep) -> None:
    """Print a run's server log, to its end and, to `follow`, until the run is over; without a name the link's last
    lines, with a site's name in the place of its key. Raises ConfigError.
    """
    open_federation(folder)
    if name is None:
        found = sorted(FederationFolder(folder).link.glob("*.log"))
        if not found:
            raise ConfigError(f"{FederationFolder(folder).link}: no logs yet, since gliofed-server start has not run")
        keys = _logged_keys(folder)
        for log in found:
            lines = log.read_text(errors="replace").splitlines()[-LINES:]
            _print([f"== {log}", *(" ".join(keys.get(word, word) for word in line.split(" ")) for line in lines)])
        return
    run, place, half = find_run(folder, name), 0, ""
    while True:
        state, _ = run.state()  # before the log is read: what is written until it ends is read as well
        if run.files.log.exists():
            with run.files.log.open("rb") as file:
                file.seek(place)
                new = file.read()
            place += len(new)
            *whole, half = (half + new.decode(errors="replace")).split("\n")
            _print(whole)
        if not follow or state not in ("waiting", "running"):
            _print([half] if half else [])
            return
        sleep(POLL)


def _current(folder: Path) -> Run:
    for state in ("running", "waiting"):
        for run in runs_of(folder):
            with suppress(ConfigError):  # of another run, of which a file is damaged
                if run.state()[0] == state:
                    return run
    raise ConfigError(f"{folder}: no run waits or runs")


def _logged_keys(folder: Path) -> dict[str, str]:
    """Whose key each is that the access log has, of every site that was ever admitted."""
    keys = {}
    for path in FederationFolder(folder).sites.glob("*/key.pub"):
        with suppress(ConfigError, OSError):  # status says it
            keys[logged_key(key_bytes(read_public(path.read_text(errors="replace"), "")))] = path.parent.name
    return keys


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(plain(re.sub(r"\x1b\[[0-9;]*m", "", line)))  # Flower's colours go; and a line may quote a hospital
