"""How far a command is."""

import sys
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gliofed.shared.terminal import plain


class Bar(Progress):
    """A bar on a terminal, on standard error; in a pipe a line every so many seconds, or only those of `line`."""

    def __init__(self, what: str, every: float = float("inf")) -> None:
        self._what, self._every = what, every
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
        # This stream, also where what is done meanwhile is given another.
        console, live = Console(file=sys.stderr), sys.stderr.isatty()
        super().__init__(*columns, console=console, transient=True, disable=not live, redirect_stderr=False)
        self._bar = self.add_task(what, total=None)
        self._start = self._last = monotonic()

    def report(self, done: int, total: int) -> None:
        """Show `done` of `total`."""
        self.update(self._bar, completed=done, total=total)
        now = monotonic()
        if now - self._last > self._every:
            self._last = now
            left = f", about {(now - self._start) / done * (total - done):.0f} s left" if done else ""
            self.line(f"{self._what}: {done} of {total}{left}")

    def line(self, text: str) -> None:
        """Print a line in a pipe, where nobody sees the bar."""
        if self.disable:
            print(plain(text), file=self.console.file, flush=True)
