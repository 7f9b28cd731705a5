"""The grid of a report: who took part in which round."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gliofed.server.report.record import Record
from gliofed.server.report.sentences import in_rounds

STATUSES = {
    "counted": ("counted", "✓"),
    "refused": ("refused", "R"),
    "declined": ("declined", "D"),
    "failed": ("failed", "F"),
    "late": ("late", "L"),
    "missing": ("missing", "M"),
    "expelled": ("expelled", "E"),
    "not_asked": ("not asked", "n"),
    "not_invited": ("not drawn", "·"),
    "absent": ("not there", " "),
}
"""A site's part in a round: the word, and a letter where there is no room for it."""
ROOM = 0.14
"""Share of the grid's width from which a word fits."""


@dataclass(frozen=True)
class Segment:
    """Neighbouring rounds in which a site had the same status."""

    rounds: int
    status: str
    text: str


@dataclass(frozen=True)
class Row:
    """One site in the grid."""

    site: str
    segments: list[Segment]
    sentence: str


def participation(record: Record) -> list[Row]:
    """Who took part in which round."""
    rounds = [event["round"] for event in record.attempts]
    rows = []
    for site in record.sites:
        lines = dict(record.lines[site])
        statuses = [(round, _status(lines.get(round))) for round in rounds]
        segments: list[Segment] = []
        spans: dict[str, set[int]] = {}
        for status, group in groupby(statuses, key=lambda each: each[1]):
            width = len(list(group))
            word, letter = STATUSES.get(status, (status, "?"))
            segments.append(Segment(width, status, word if width / len(rounds) >= ROOM else letter))
        for round, status in statuses:
            spans.setdefault(STATUSES.get(status, (status, ""))[0], set()).add(round)
        sentence = "; ".join(f"{status} in {in_rounds(those)}" for status, those in spans.items())
        rows.append(Row(site, segments, sentence))
    return rows


def _status(line: Mapping[str, Any] | None) -> str:
    return "absent" if line is None else str(line["status"])
