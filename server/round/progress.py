"""What the operator sees while rounds run: a bar on a terminal, plain lines in a pipe, and a file for `status`."""

import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gliofed.shared.files import write_json
from gliofed.shared.parse import ConfigError, Strict, parse
from gliofed.shared.run_folder import RunFolder
from gliofed.shared.terminal import plain

Phase = Literal["waiting", "preparing", "training", "averaging", "evaluating"]
"""Of a round; waiting: for sites to connect."""


@dataclass(frozen=True, kw_only=True)
class RoundState(Strict):
    """Where a round stands. What a killed server left may be old: `status` asks whether the server lives."""

    round: int
    phase: Phase
    since: str
    """When the phase began; ISO 8601, as `began`."""
    began: str
    """When this server began the round."""
    asked: list[str] = field(default_factory=list)
    """Sites that were asked in this phase; asked since then, unless they have answered."""
    answered: dict[str, str] = field(default_factory=dict)
    """What each site that has answered did: prepared, trained, evaluated, declined, failed or late, say."""


class RoundProgress:
    """One bar a round, a tick for each answer that is in."""

    def __init__(self, rounds: int, file: Path | None = None) -> None:
        """Show `rounds` rounds on standard error, so that results can be piped, and write `file` for `status`."""
        self._rounds, self._console, self._file = rounds, Console(stderr=True), file
        self._state: RoundState | None = None
        self._before: Mapping[str, str] = {}
        self._live = sys.stderr.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
        times = (TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left in this round"))
        self._bars = Progress(*columns, *times, console=self._console, disable=not self._live)
        self._bar: TaskID | None = None

    def __enter__(self) -> "RoundProgress":
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing, whatever happened."""
        self._bars.stop()
        if self._file:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def start(self, round: int, answers: int, trained: Collection[str] = ()) -> None:
        """Begin a round in which `answers` answers are awaited; `trained` sites answered an earlier server."""
        self._bar = self._bars.add_task(f"round {round}/{self._rounds}", total=answers)
        self._before = dict.fromkeys(trained, "trained")

    def enter(self, round: int, phase: Phase, asked: Collection[str] = ()) -> None:
        """Begin a phase of a round, in which these sites are asked."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        began = self._state.began if self._state and self._state.round == round else now
        answered = dict(self._before) if phase == "training" else {}
        state = RoundState(round=round, phase=phase, since=now, began=began, asked=list(asked), answered=answered)
        self._write(state)

    def answer(self, site: str, did: str) -> None:
        """A site that was asked in this phase has answered, or is not awaited any more."""
        assert self._state is not None  # a phase was entered
        self._state.answered[site] = did
        self._write(self._state)

    def tick(self, what: str) -> None:
        """One more answer is in."""
        if self._bar is not None:
            self._bars.advance(self._bar)
        if not self._live:
            self.say(what)

    def finish(self, summary: str) -> None:
        """End the round with a line that stays."""
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None
        self.say(summary)

    def say(self, line: str) -> None:
        """Print one line; never wrapped, for a pipe's reader. A site's words are no command for the terminal."""
        self._console.print(plain(line), highlight=False, markup=False, soft_wrap=True)

    def _write(self, state: RoundState) -> None:
        self._state = state
        if self._file:
            with suppress(OSError):  # a full disk: training goes on without it
                write_json(self._file, asdict(state))


def read_progress(run: Path) -> RoundState | None:
    """Read where the round of the run in this folder stands; None where nothing tells."""
    with suppress(OSError, ConfigError, ValueError):
        return parse(RoundState, RunFolder(run).progress.read_text())
    return None
