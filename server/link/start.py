"""gliofed-server start: the SuperLink, nginx, the members and the runs, for as long as nobody ends it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gliofed.server.link.control import ControlError, SilentError
from gliofed.server.link.members import Member, sync_members
from gliofed.server.link.online import write_online
from gliofed.server.link.runner import Runner
from gliofed.server.link.superlink import Link, open_link
from gliofed.server.provisioning.certificates import ending_soon
from gliofed.server.provisioning.federation import open_federation
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.audit import note_or_print
from gliofed.shared.chain import lock
from gliofed.shared.files import absolute
from gliofed.shared.locks import BusyError
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import asked_to_end
from gliofed.shared.terminal import command_line, outlive_readers, print_with_time

TICK = 2.0
"""Seconds between two looks at everything."""
WAIT = 1.0
"""For the federation's folder, which `status` holds for a moment."""
STARTS = 120.0
"""Seconds that a SuperLink may take before it answers."""
HANGS = 240.0
"""Seconds without any answer after which it is ended, and so started again."""
PENDING = 120.0
"""Seconds that a run may wait for its server: Flower starts one within seconds, by a program of its own, a superexec,
that nobody starts again once it ended."""


def start(folder: Path) -> None:
    """Run a federation until a signal, or its terminal, ends it. Raises ConfigError, before anything is started."""
    folder = absolute(folder)
    federation = open_federation(folder)
    stop = asked_to_end()
    outlive_readers()
    with only_one(folder):
        link = open_link(folder)
        note_or_print(folder, "started")
        service = Service(folder, link, Runner(folder, link.control))
        try:
            print_with_time(*ending_soon(folder))
            print_with_time(f"{federation.name}: starts, for {federation.address}; logs in {folder}/link")
            with suppress(OSError):  # a full disk is said in the loop
                service.write()  # in the place of what a start that was killed knew
            while not stop.is_set():
                print_with_time(*service.supervise())
                stop.wait(TICK)
        finally:
            print_with_time(f"{federation.name}: ends")
            for program in reversed(link.programs):
                program.end()
            FederationFolder(folder).online.unlink(missing_ok=True)
            note_or_print(folder, "ended")


@dataclass
class Service:
    """Everything that `start` looks after."""

    folder: Path
    link: Link
    runner: Runner
    members: dict[str, Member] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    trouble: str | None = None
    """What is not as it should be."""
    _known: int | None = None
    """Process of the SuperLink that answered last."""
    _registered: bool = False
    """Whether the SuperLink knows the keys, so that nodes may come."""
    _answered: float = 0.0
    """When a SuperLink answered last, by the clock."""

    def supervise(self) -> list[str]:
        """Look after everything once; return what there is to say. What is wrong now, as a full disk, ends nothing."""
        messages: list[str] = []
        troubles = [*self._programs(messages), *self._federation(messages), *self.runner.troubles]
        before, self.trouble = self.trouble, "; ".join(troubles) or None
        try:
            self.write()
        except OSError as error:
            self.trouble = "; ".join([*troubles, _sentence(error)])
        return [*messages, *([self.trouble] if self.trouble and self.trouble != before else [])]

    def _programs(self, messages: list[str]) -> Iterator[str]:
        """Start what has ended; yield what is wrong."""
        for program in self.link.programs:
            # nginx comes second: a node that finds its key not registered yet ends for good.
            if program is self.link.superlink or self._registered:
                try:
                    messages += program.supervise()
                except OSError as error:
                    yield _sentence(error)

    def _federation(self, messages: list[str]) -> Iterator[str]:
        """Look after sites and runs, as far as the SuperLink answers; yield what is wrong."""
        process = self.link.superlink.process
        try:
            self.members, done, faults = sync_members(self.link.control, self.folder, self.members)
            self._answered, self._registered = self.clock(), True
            messages += done
            yield from faults  # each is one site's: the other sites and the runs go on
            if process is not None and process.pid != self._known:
                self.runner.forget()
                self._known = process.pid
            messages += self.runner.supervise(self.members)
            if self.runner.pending() > PENDING:
                messages.append(f"a run has had no server for {PENDING:g} s; the SuperLink is started again")
                self.link.superlink.end()
        except SilentError as error:
            if min(self.link.superlink.seconds(), self.clock() - self._answered) > HANGS:
                messages.append(f"the SuperLink has not answered for {HANGS:g} s; it is started again")
                self.link.superlink.end()
            yield "the SuperLink starts" if self.link.superlink.seconds() <= STARTS else str(error)
        except (ControlError, ConfigError, OSError) as error:
            yield _sentence(error)

    def write(self) -> None:
        """Tell gliofed-server status what is known."""
        programs = {program.name: program.process is not None for program in self.link.programs}
        members = {site: asdict(member) for site, member in self.members.items()}
        write_online(self.folder, {"programs": programs, "sites": members, "trouble": self.trouble})


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a federation's folder: two servers would end each other's programs. Raises ConfigError."""
    FederationFolder(folder).link.mkdir(mode=0o700, exist_ok=True)
    try:
        file = lock(FederationFolder(folder).link, WAIT)
    except BusyError:
        status = command_line("gliofed-server", "status", folder)
        raise ConfigError(f"{folder}: its server runs already; see {status}") from None
    with file:
        yield


def _sentence(error: Exception) -> str:
    return f"{error.filename or 'start'}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
