"""The page that a check writes, and its table."""

import io
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest

from gliofed.client.doctor import check_command
from gliofed.client.doctor.findings import Finding
from gliofed.client.doctor.judgement import CaseReport
from gliofed.client.doctor.page import page
from gliofed.shared.data.layouts import Inventory
from gliofed.shared.terminal import plain


def test_names_of_files_are_not_markup() -> None:
    """Whoever names a file must not write into the page or to the terminal."""

    class Tags(HTMLParser):
        seen: set[str] = set()

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.seen.add(tag)

    evil = "<script>alert(1)</script><img src=x onerror='y'>\udcff"
    finding = Finding(code="unreadable", message=f"{evil}: broken", file=evil)
    shown = page([CaseReport(evil, evil, "error", [finding])], [finding], {evil: 1}, {"root": evil})
    Tags().feed(shown)
    assert not Tags.seen & {"script", "img"}
    assert plain("a\x1b[2J\udcff\nb") == r"a\x1b[2J\udcff\nb"


def test_the_table_is_straight_on_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter that the terminal does not have is printed as several."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", "backslashreplace", write_through=True))
    monkeypatch.setenv("COLUMNS", "60")
    reports = [CaseReport(name, "1", "ok", []) for name in ("Müller", "P1", "ü" * 40)]
    check_command._print(reports, [], [], Inventory([], [], False, Counter()))
    table = [line for line in written.getvalue().decode().splitlines() if line.startswith(("+", "|"))]
    assert len({len(line) for line in table}) == 1 and any(r"M\xfcller" in line for line in table)
