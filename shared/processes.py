"""Programs that run for as long as we do: started again, after growing pauses, when they end."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gliofed.shared.files import write_json

CALM = 60.0
"""Seconds after which a program counts as running well: its next pause is the first one again."""
PATIENCE = 10.0
"""Seconds that a program has to end when it is asked to."""
MARK = "GLIOFED_PROGRAM"
"""Name of the mark in the environment of a program's processes."""
LONGEST_LOG = 32 * 2**20
"""Bytes from which a log becomes the old log, beside it, and another one begins."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def user_name() -> str:
    """Who runs this process; a user without a name, as in some containers, is its number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


@dataclass
class Program:
    """One program, in a process group of its own, and all that it starts."""

    name: str
    command: Sequence[str]
    folder: Path
    """For its log and the note of its process."""
    environment: Mapping[str, str]
    pauses: Sequence[float] = (1, 2, 5, 15, 60)
    """Seconds before each start after an end; the last stays."""
    other_logs: Sequence[Path] = ()
    """What it writes by itself, at the end of the file; kept as short as its log."""
    process: "subprocess.Popen[bytes] | None" = None
    _since: float = 0.0
    _due: float = 0.0
    _ends: int = 0

    def supervise(self) -> list[str]:
        """Start it where that is due; return what there is to say."""
        now, messages = time.monotonic(), list[str]()
        if self.process is not None and (status := self.process.poll()) is not None:
            self._end_all(self.process.pid)  # whatever it has started
            self._ends = 1 if now - self._since > CALM else self._ends + 1
            pause = self.pauses[min(self._ends, len(self.pauses)) - 1]
            self._due, self.process = now + pause, None
            messages.append(f"{self.name} ended ({_words(status)}); again in {pause:g} s, see {self.log}")
        if self.process is None and now >= self._due:
            self._start()
        for log in (self.log, *self.other_logs):
            _shorten(log)
        return messages

    def seconds(self) -> float:
        """How long it has run; 0 where it does not."""
        return time.monotonic() - self._since if self.process is not None else 0.0

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / f"{self.name}.log"

    def end(self) -> None:
        """End it and all that it started."""
        if self.process is not None:
            self._end_all(self.process.pid)
            self.process.wait()
            self.process = None
        self._note.unlink(missing_ok=True)

    def end_older(self) -> None:
        """End what an earlier supervisor, which was killed, has left running."""
        group = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._note.read_text())
            # A number alone may be another's by now. Where the first process is gone, the group's stays its own as long
            # as it has a member.
            if known["boot"] == _boot() and start_of(known["pid"]) in (known["started"], None):
                group = int(known["pid"])
        self._end_all(group)

    @property
    def _note(self) -> Path:
        return self.folder / f"{self.name}.process.json"

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # our own command
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, MARK: self._mark},
                start_new_session=True,
            )
        self._since = time.monotonic()
        with suppress(OSError):  # a full disk: without the note, its processes are known by their mark
            write_json(self._note, {"pid": self.process.pid, "started": start_of(self.process.pid), "boot": _boot()})

    @property
    def _mark(self) -> str:
        """What its processes, and theirs, have in their environment."""
        return str(self._note.resolve())

    def _end_all(self, group: int | None) -> None:
        """Ask all its processes to end, and end those that do not."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            asked: set[int] = set()
            end = time.monotonic() + PATIENCE
            while running := self._members(group):
                for pid in set(running) - asked:  # one may be born while others are asked
                    with suppress(ProcessLookupError):
                        os.kill(pid, kind)
                if time.monotonic() >= end:
                    break
                asked.update(running)
                time.sleep(0.1)

    def _members(self, group: int | None) -> list[int]:
        """Its processes that run: of its group, and those that left it, as Flower's do, by their environment."""
        mark, found = f"{MARK}={self._mark}".encode(), []
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            stat = _stat(pid)
            if stat and (int(stat[2]) == group or mark in _environment(pid)):
                found.append(pid)
        return found


def _shorten(log: Path) -> None:
    """Begin another log; the program writes at the end of the same file, wherever that is."""
    if log.exists() and log.stat().st_size > LONGEST_LOG:
        with suppress(OSError):  # a full disk: the log is what can be done without
            shutil.copyfile(log, log.with_suffix(".old.log"))
        os.truncate(log, 0)


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process that runs, from its state on; empty where none does."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if stat[0] not in "ZX":  # ended, and listed until its parent has asked for it
            return stat
    return []


def _boot() -> str:
    """Which start of the machine this is: numbers of processes begin anew with each."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_of(pid: int) -> str | None:
    """When a process began, in the kernel's ticks since the machine did; None where none runs. A number alone may be
    another's by now; in a container it often is, after a restart.
    """
    stat = _stat(pid)
    return stat[19] if stat else None


def _environment(pid: int) -> list[bytes]:
    """The environment that a process began with; empty where it is another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _words(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


@contextmanager
def spared_ctrl_c() -> Iterator[None]:
    """Keep the terminal's Ctrl-C from processes that begin meanwhile; this one gets it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def no_proxy_here() -> dict[str, str]:
    """What programs that call each other on loopback need in their environment: no proxy on that way."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")  # Python takes the first where there are both
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(filter(None, [known, "127.0.0.1", "localhost"])))


def asked_to_end() -> threading.Event:
    """Watch for SIGTERM, Ctrl-C and a closed terminal: the programs have sessions of their own, and would stay."""
    stop = threading.Event()
    closed = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN  # else nohup asked to outlive the terminal
    for kind in (signal.SIGTERM, signal.SIGINT, *[signal.SIGHUP] * closed):
        signal.signal(kind, lambda *_: stop.set())
    return stop
