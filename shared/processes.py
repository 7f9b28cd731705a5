"""Programs that run for as long as we do: started again, after growing pauses, when they end."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shared.files import write_json

CALM = 60.0
"""Seconds after which a program counts as running well: its next pause is the first one again."""
PATIENCE = 10.0
"""Seconds that a program has to end when it is asked to."""


@dataclass
class Program:
    """One program, in a process group of its own."""

    name: str
    command: Sequence[str]
    folder: Path
    """For its log and the note of its process."""
    environment: Mapping[str, str]
    pauses: Sequence[float] = (1, 2, 5, 15, 60)
    """Seconds before each start after an end; the last stays."""
    process: "subprocess.Popen[bytes] | None" = None
    _since: float = 0.0
    _due: float = 0.0
    _ends: int = 0
    _said: list[str] = field(default_factory=list)

    def tend(self) -> list[str]:
        """Start it where that is due; return what there is to say."""
        now = time.monotonic()
        if self.process is not None and (status := self.process.poll()) is not None:
            self._end_group(self.process.pid)  # whatever it has started
            self._ends = 1 if now - self._since > CALM else self._ends + 1
            pause = self.pauses[min(self._ends, len(self.pauses)) - 1]
            self._due, self.process = now + pause, None
            self._said.append(f"{self.name} ended ({_words(status)}); again in {pause:g} s, see {self.log}")
        if self.process is None and now >= self._due:
            self._start()
        said, self._said = self._said, []
        return said

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / f"{self.name}.log"

    def end(self) -> None:
        """End it and all that it started."""
        if self.process is not None:
            self._end_group(self.process.pid)
            self.process.wait()
            self.process = None
        self._note.unlink(missing_ok=True)

    def end_older(self) -> None:
        """End what an earlier supervisor, which was killed, has left running."""
        with suppress(OSError, ValueError, KeyError):
            known = json.loads(self._note.read_text())
            if _started(known["pid"]) == known["started"]:
                self._end_group(known["pid"])

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
                env=dict(self.environment),
                start_new_session=True,
            )
        self._since = time.monotonic()
        write_json(self._note, {"pid": self.process.pid, "started": _started(self.process.pid)})

    def _end_group(self, pid: int) -> None:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(pid, kind)
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                if self.process is not None:
                    self.process.poll()  # reaps it
                try:
                    os.killpg(pid, 0)
                except ProcessLookupError:
                    return
                time.sleep(0.05)


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: a pid alone may have been given to another."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _words(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
