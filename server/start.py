"""gliofed-server start: the SuperLink, nginx, the members and the runs, for as long as nobody ends it."""

import fcntl
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from server.certificates import ending_soon
from server.control import ControlError
from server.federation import open_federation
from server.link import Link, link_folder, open_link
from server.members import Member, tend_members
from server.online import forget_online, write_online
from server.runner import Runner
from shared.parse import ConfigError

TICK = 2.0
"""Seconds between two looks at everything."""
STARTS = 120.0
"""Seconds that a SuperLink may take before it answers."""


def start(folder: Path) -> None:
    """Run a federation until SIGTERM or SIGINT. Raises ConfigError, before anything is started."""
    folder = folder.expanduser().resolve()
    federation = open_federation(folder)
    stop = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: stop.set())
    with only_one(folder):
        link = open_link(folder)
        service = Service(folder, link, Runner(folder, link.control))
        try:
            say([*ending_soon(folder), f"{federation.name}: starts, for {federation.address}; logs in {folder}/link"])
            while not stop.is_set():
                say(service.tend())
                stop.wait(TICK)
        finally:
            say([f"{federation.name}: ends"])
            for program in reversed(link.programs):
                program.end()
            forget_online(folder)


@dataclass
class Service:
    """Everything that `start` looks after."""

    folder: Path
    link: Link
    runner: Runner
    members: dict[str, Member] = field(default_factory=dict)
    trouble: str | None = None
    """Why the last look was not finished."""
    _known: int | None = None
    """Process of the SuperLink that answered last."""

    def tend(self) -> list[str]:
        """Look after everything once; return what there is to say."""
        # nginx comes second: a node that finds its key not registered yet ends for good.
        said = self.link.superlink.tend() + (self.link.proxy.tend() if self._known is not None else [])
        process = self.link.superlink.process
        try:
            self.members, done = tend_members(self.link.control, self.folder)
            said += done
            if process is not None and process.pid != self._known:
                self.runner.forget()
                self._known = process.pid
            said += self.runner.tend(self.members)
            trouble = None
        except ControlError as error:
            trouble = str(error) if self.link.superlink.seconds() > STARTS else "the SuperLink starts"
        except (ConfigError, OSError) as error:
            trouble = str(error)
        if trouble and trouble != self.trouble:
            said.append(trouble)
        self.trouble = trouble
        self.write()
        return said

    def write(self) -> None:
        """Tell gliofed-server status what is known."""
        programs = {program.name: program.process is not None for program in self.link.programs}
        members = {site: asdict(member) for site, member in self.members.items()}
        write_online(self.folder, {"programs": programs, "sites": members, "trouble": self.trouble})


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a federation's folder: two servers would end each other's programs. Raises ConfigError."""
    link_folder(folder).mkdir(mode=0o700, exist_ok=True)
    with (link_folder(folder) / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder}: its server runs already; see gliofed-server status {folder}") from None
        yield


def say(sentences: list[str]) -> None:
    """Print with the time; whoever runs this as a service has it in a log."""
    for sentence in sentences:
        print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {sentence}", file=sys.stdout, flush=True)
