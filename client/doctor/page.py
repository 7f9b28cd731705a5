"""check.json and check.html: what a check found, for programs and for people."""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from gliofed.client.doctor.findings import ERRORS, WARNINGS, Finding
from gliofed.client.doctor.judgement import CaseReport, Status
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.wording import quantity

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2530 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .8rem .25rem 0; text-align: left;
vertical-align: top; border-bottom: 1px solid #d9dee4 } code { background: #eef1f4; padding: 0 .25rem }
.ok { color: #176c3a } .warning { color: #8a5a00 } .error { color: #a8201a } figure { display: flex; gap: 1rem;
margin: .6rem 0; align-items: flex-start } img { background: #000 } figcaption { overflow-wrap: anywhere }
"""


def summary(reports: Sequence[CaseReport], strays: Sequence[Finding]) -> dict[str, Any]:
    """Counts of the whole cohort: cases, patients, cases by status, code and missing modality, and of strays."""
    codes = Counter(code for report in reports for code in {finding.code for finding in report.findings})
    codes += Counter(finding.code for finding in strays)
    return {
        "cases": len(reports),
        "patients": len({report.patient for report in reports}),
        **{status: sum(report.status == status for report in reports) for status in ("ok", "warning", "error")},
        "not_understood": len(strays),
        "codes": dict(sorted(codes.items())),
        "lacking": dict(sorted(Counter(modality for report in reports for modality in report.lacks).items())),
        "not_checked": [
            f"{code} in {quantity(count, 'case')}: {why}"
            for (code, why), count in sorted(Counter(each for one in reports for each in one.unchecked.items()).items())
        ],
    }


def lacking(counts: Mapping[str, Any]) -> list[str]:
    """Say of each modality how many cases have no file for it, from the `summary`."""
    cases = quantity(counts["cases"], "case")
    return [
        f"{count} of {cases} {'lacks' if count == 1 else 'lack'} {modality}"
        for modality, count in counts["lacking"].items()
    ]


def write_reports(
    reports: Sequence[CaseReport],
    strays: Sequence[Finding],
    not_used: Mapping[str, int],
    settings: Mapping[str, Any],
    out: Path,
) -> None:
    """Write check.json and check.html into `out`, each whole or not at all; `settings` is shown with the counts.

    `strays` are findings of what is in no case, `not_used` counts known files by pattern.
    """
    cases = [
        {
            "patient": report.patient,
            "visit": report.visit,
            "status": report.status,
            "not_checked": report.unchecked,
            "findings": _plain(report.findings),
        }
        for report in reports
    ]
    counts = {**settings, **summary(reports, strays)}
    rest = {"not_understood": _plain(strays), "not_used": dict(sorted(not_used.items()))}
    write_json(out / "check.json", {"summary": counts, "cases": cases, **rest})
    # A file's name may hold bytes that are no text.
    write_bytes(out / "check.html", page(reports, strays, not_used, settings).encode(errors="backslashreplace"))


def _plain(findings: Sequence[Finding]) -> list[dict[str, str | None]]:
    """Findings without their pictures."""
    return [{key: getattr(each, key) for key in ("code", "severity", "file", "message")} for each in findings]


def page(
    reports: Sequence[CaseReport], strays: Sequence[Finding], not_used: Mapping[str, int], settings: Mapping[str, Any]
) -> str:
    """One HTML page that needs nothing else: pictures are inside, names are escaped, nothing runs."""
    counts = summary(reports, strays)
    facts = {
        **settings,
        **{key: counts[key] for key in ("cases", "patients")},
        "without findings": counts["ok"],
        "with warnings only": counts["warning"],
        "with errors": counts["error"],
        "not understood": counts["not_understood"],
        **({"missing images": "; ".join(lacking(counts))} if counts["lacking"] else {}),
        **({"not checked": "; ".join(counts["not_checked"])} if counts["not_checked"] else {}),
    }
    codes = [[code, number, (ERRORS | WARNINGS)[code]] for code, number in counts["codes"].items()]
    patients = [
        [name, ", ".join(visits), status, ", ".join(found)] for name, visits, status, found in by_patient(reports)
    ]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>gliofed check</title>",
        f"<style>{STYLE}</style></head><body><h1>Check of a cohort</h1>",
        _table((), [[key, value] for key, value in facts.items()]),
        _table(("finding", "cases", "meaning"), codes) if codes else "",
        "<h2>Patients</h2>",
        _table(("patient", "visits", "status", "findings"), patients),
        "<h2>Findings</h2><p>Pictures are axial slices, seen from the feet: the patient's right is on the left. "
        "The mask, or what is wrong, is outlined.</p>",
        *filter(None, map(_case, reports)),
        "<h3>In no case</h3>" if strays else "",
        *map(_finding, strays),
        "<h2>Known and not used</h2>" + _table(("files", "number"), sorted(not_used.items())) if not_used else "",
        "<p>Names and pictures here are patients': this page stays at the hospital.</p></body></html>",
    ]
    return "\n".join(parts)


def by_patient(reports: Sequence[CaseReport]) -> list[tuple[str, list[str], Status, list[str]]]:
    """Patient, visits, gravest status and codes, sorted by patient."""
    rows: list[tuple[str, list[str], Status, list[str]]] = []
    name = attrgetter("patient")
    for patient, group in groupby(sorted(reports, key=name), name):
        visits = list(group)
        status = max((report.status for report in visits), key=("ok", "warning", "error").index)
        codes = sorted({finding.code for report in visits for finding in report.findings})
        rows.append((patient, [report.visit for report in visits], status, codes))
    return rows


def _case(report: CaseReport) -> str:
    title = f"<h3>{escape(report.patient)} visit {escape(report.visit)}</h3>" if report.findings else ""
    return title + "".join(map(_finding, report.findings))


def _finding(finding: Finding) -> str:
    caption = (
        f"<figcaption><b class='{finding.severity}'>{finding.severity}</b> <code>{escape(finding.code)}</code><br>"
        f"{escape(finding.message)}</figcaption>"
    )
    picture = ""
    if finding.picture:
        encoded = base64.b64encode(finding.picture).decode()
        picture = f"<img alt='{escape(finding.code)}' src='data:image/png;base64,{encoded}'>"
    return f"<figure>{picture}{caption}</figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    first = "".join(f"<th>{escape(word)}</th>" for word in head)
    lines = ["".join(_cell(value) for value in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in [first, *lines] if line) + "</table>"


def _cell(value: Any) -> str:
    status = f" class='{value}'" if value in ("ok", "warning", "error") else ""
    return f"<td{status}>{escape(str(value))}</td>"
