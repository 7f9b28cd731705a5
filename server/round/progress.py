"""What the operator sees while rounds run: a bar on a terminal, plain lines in a pipe."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shared.terminal import plain


class RoundProgress:
    """One bar a round, a tick for each answer that is in."""

    def __init__(self, rounds: int) -> None:
        """Show `rounds` rounds on standard error, so that results can be piped."""
        self._rounds, self._console = rounds, Console(stderr=True)
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

    def start(self, round: int, answers: int) -> None:
        """Begin a round in which `answers` answers are awaited."""
        self._bar = self._bars.add_task(f"round {round}/{self._rounds}", total=answers)

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
