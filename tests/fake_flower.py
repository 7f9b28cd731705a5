"""A SuperLink that remembers which runs it was asked for, and a runner whose clock stands still."""

from dataclasses import dataclass, field
from pathlib import Path

from gliofed.server.link.members import Member
from gliofed.server.link.runner import Runner
from gliofed.server.link.runs import Run
from gliofed.server.round.history import Event, History

MEMBERS = {"a": Member(node=7, online=True, seen=None, patients=40)}

END = {"event": "end", "status": "done"}

FAILED = {"event": "end", "status": "failed", "reason": "round 1: 0 updates counted"}

ROUND = {"event": "round", "round": 1, "sites": {}, "global": None}


@dataclass
class Flower:
    """A SuperLink that remembers what it was asked for."""

    going: dict[int, str] = field(default_factory=dict)
    started: list[dict[str, str]] = field(default_factory=list)
    codes: list[bytes] = field(default_factory=list)
    word: str = "running"

    def unfinished(self) -> dict[int, str]:
        return dict(self.going)

    def start_run(self, code: bytes, config: dict[str, str]) -> int:
        self.codes.append(code)
        self.started.append(config)
        self.going[len(self.started)] = self.word
        return len(self.started)

    def stop_run(self, run: int) -> None:
        del self.going[run]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def runner(study: Path) -> tuple[Runner, Flower, Clock]:
    flower, clock = Flower(), Clock()
    return Runner(study, flower, clock), flower, clock  # type: ignore[arg-type]


def write(run: Run, *events: Event) -> None:
    for event in events:
        History(run.folder / "history.jsonl").append(event)
