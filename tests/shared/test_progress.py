"""Progress in a pipe: no bar, and lines as a command wants them."""

import pytest

from gliofed.shared import progress
from gliofed.shared.progress import Bar


@pytest.mark.parametrize(
    ("every", "printed"),
    [
        (float("inf"), "one\\x1b case\n"),
        (10.0, "one\\x1b case\nreading: 2 of 6, about 40 s left\nreading: 4 of 6, about 20 s left\n"),
    ],
)
def test_a_pipe_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], every: float, printed: str
) -> None:
    """The clock is replaced, since nobody waits for a minute."""
    clock = iter([0.0, 5.0, 20.0, 25.0, 40.0, 45.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with Bar("reading", every) as bar:
        bar.line("one\x1b case")
        for done in range(1, 6):
            bar.report(done, 6)
    assert capsys.readouterr().err == printed


def test_nothing_done_yet_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A model's first step may take longer than the time between two lines: the command divided by zero."""
    clock = iter([0.0, 15.0, 30.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with Bar("reference", 10.0) as bar:
        bar.report(0, 4)
        bar.report(1, 4)
    assert capsys.readouterr().err == "reference: 0 of 4\nreference: 1 of 4, about 90 s left\n"
