"""report.html: one file that shows a run, from the files of its folder; nothing of it is fetched from elsewhere."""

import math
import sys
from pathlib import Path
from typing import Any

from gliofed.server.report.page.answers import answers
from gliofed.server.report.page.curves import curves, numbers, other_metrics, privacy_chart, shares, traffic
from gliofed.server.report.page.facts import (
    about,
    config_rows,
    privacy_facts,
    provenance_rows,
    repeat_command,
    versions_of,
)
from gliofed.server.report.page.grid import STATUSES, participation
from gliofed.server.report.page.tables import (
    bytes_of_sites,
    cases,
    gains,
    matrix,
    subgroups,
    test_table,
    weak_spots,
)
from gliofed.server.report.record import Record, read_record
from gliofed.server.report.sentences import bounds_of_run, reasons_of_run
from gliofed.shared.files import write_bytes
from gliofed.shared.page.render import render
from gliofed.shared.run_folder import RunFolder

SECTIONS = {
    "answers": "In short",
    "curves": "Curves",
    "test": "Test",
    "sites": "Who took part",
    "shares": "Weight of the sites",
    "data": "Data",
    "traffic": "Bytes and seconds",
    "privacy": "Privacy",
    "slices": "Slices",
    "configuration": "Configuration",
}
"""Every section of the page: the name of its place, and its title."""


def write_page(out: Path) -> None:
    """Write the report of a run into its folder; a fault is said in one line, and ends nothing."""
    try:
        write_bytes(RunFolder(out).page, make_page(out).encode())
    except Exception as error:
        print(f"{RunFolder(out).page}: not drawn: {error!r}"[:300], file=sys.stderr, flush=True)


def make_page(out: Path) -> str:
    """Draw the report of the run in this folder, as HTML. Raises ConfigError: a damaged history."""
    record = read_record(out)
    return render(
        Path(__file__).parent,
        "report.html",
        sections=[{"id": id, "title": title} for id, title in SECTIONS.items()],
        titles=SECTIONS,
        record=record,
        about=about(record),
        answers=answers(record),
        picks=_picks(record),
        **_pictures(record),
        **_tables(record),
        privacy=privacy_facts(record),
        config=config_rows(record),
        versions=versions_of(record),
        provenance=provenance_rows(record),
        repeat=repeat_command(record),
    )


def _pictures(record: Record) -> dict[str, Any]:
    return {
        "curves": curves(record),
        "other_metrics": other_metrics(record),
        "numbers": numbers(record),
        "shares": shares(record),
        "traffic": traffic(record),
        "epsilon": privacy_chart(record),
    }


def _tables(record: Record) -> dict[str, Any]:
    comparison = record.comparison
    return {
        "matrix": matrix(comparison) if comparison else None,
        "gains": gains(comparison) if comparison else None,
        "subgroups": subgroups(comparison) if comparison else [],
        "tested": test_table(record),
        "weak": weak_spots(record),
        "rows": participation(record),
        "statuses": STATUSES,
        "reasons": reasons_of_run(record.attempts),
        "bounds": bounds_of_run(record.events),
        "cases": cases(record),
        "moved": bytes_of_sites(record),
    }


def _picks(record: Record) -> list[str]:
    """Sites that a reader can pick out of many, the one with the lowest score first."""
    sign, series = (-1 if record.lower_is_better else 1), record.site_series(record.metric)
    last = {site: next(filter(math.isfinite, reversed([*values.values()])), None) for site, values in series.items()}
    return sorted(record.sites, key=lambda site: (last[site] is None, sign * (last[site] or 0.0)))
