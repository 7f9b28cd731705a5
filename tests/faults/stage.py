"""A run of a federation of real processes to which something is done, and what can be seen of it from outside."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployed_federation import Deployed
from safetensors.torch import load_file

from gliofed.shared.processes import MARK

POLL = 0.02
"""Seconds between two looks: a transfer may last half a second."""
WORDS = {
    "SuperNode": b"gliofed.client.link.supernode",
    "ClientApp": b"client/link/clientapp.py",
    "ServerApp": b"flwr-serverapp",
}
"""In the command of each program that is found by it."""


@dataclass
class Stage:
    """One run; `site` is the hospital that things happen to."""

    made: Deployed
    name: str
    site: str
    settings: tuple[str, ...]
    began: float = field(default_factory=time.time)

    @property
    def run(self) -> Path:
        return self.made.folder / "runs" / self.name

    def submit(self) -> None:
        words = ("run", f"federation={self.made.folder}", f"name={self.name}", *self.settings)
        assert self.made.command(*words).wait() == 0
        self.began = time.time()

    def wait_for(self, moment: str, patience: float = 300.0) -> None:
        """Wait for a moment of the first round at the site: asking, training or transferring."""
        self.until(lambda: self._is_at(moment), f"{moment} at {self.site}", patience)

    def until(self, true: Callable[[], Any], what: str, patience: float) -> None:
        end = time.monotonic() + patience
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {patience:g} s")
            time.sleep(POLL)

    def pid(self, program: str) -> int:
        """The newest process of a program, of the site or of the server; it may be about to start."""
        if program in ("SuperLink", "nginx"):
            return self.made.pid(program.lower())
        home = self.made.folder if program == "ServerApp" else self.made.hospital(self.site)
        found: list[int] = []

        def look() -> list[int]:
            found[:] = [pid for pid in _marked(home) if WORDS[program] in _read(pid, "cmdline")]
            return found

        self.until(look, f"a process of the {program}", 30.0)
        return max(found)

    def end(self) -> str | None:
        """The status of the run's end; None: it goes on."""
        last = self.events()[-1:]
        return str(last[0]["status"]) if last and last[0]["event"] == "end" else None

    def events(self) -> list[dict[str, Any]]:
        file = self.run / "history.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def rounds(self) -> list[dict[str, Any]]:
        """The rounds that are over, whether or not they made weights."""
        return [event for event in self.events() if event["event"] in ("round", "round_failed")]

    def connected(self) -> bool:
        """Whether the server says that the site is there."""
        return self.made.connected(self.site)

    def uncounted(self) -> list[str]:
        """Each site that did not count in a round, and why."""
        return [
            f"round {event['round']}: {site} {line['status']} ({line['reason']})"
            for event in self.rounds()
            for site, line in event["sites"].items()
            if line["status"] != "counted"
        ]

    def records(self, simulated: Path, rounds: int) -> list[str]:
        """What is wrong with the records; empty: nothing is."""
        wrong = []
        numbers = [event["round"] for event in self.events() if event["event"] == "round"]
        if numbers != list(range(1, rounds + 1)):
            wrong.append(f"rounds of the history are {numbers}")
        for site in self.made.sites:
            if self.made.command("audit", "verify", self.run, "--site", self.made.hospital(site) / "work").wait():
                wrong.append(f"the logs of {site} and of the server do not agree")
        if not self.uncounted():
            ours, theirs = (load_file(each / "model" / "model.safetensors") for each in (self.run, simulated))
            if any(not bool((ours[name] == theirs[name]).all()) for name in theirs):
                wrong.append("the weights are not those of the simulation")
        return wrong

    def _is_at(self, moment: str) -> bool:
        state: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            state = json.loads((self.made.hospital(self.site) / "state.json").read_text())
        works, kind = state.get("state") == "working", state.get("kind")
        if moment == "asking":
            return works and kind == "query"
        if moment == "training":
            return works and kind == "train" and not self._stored()
        return self._stored() and not self._spooled()

    def _stored(self) -> bool:
        """Whether the site has a reply to this run on disk."""
        outbox = self.made.hospital(self.site) / "work" / "outbox"
        return any(path.stat().st_mtime > self.began for path in outbox.glob("*.json"))

    def _spooled(self) -> bool:
        """Whether the server has it."""
        return any(event["event"] == "round" for event in self.events()) or any(
            (self.run / "spool").glob(f"*/{self.site}.json")
        )


def _marked(home: Path) -> list[int]:
    """Processes that belong to the programs of a folder."""
    mark = f"{MARK}={home.resolve()}/".encode()
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in _read(pid, "environ")]


def _read(pid: int, what: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{what}").read_bytes()
    return b""
