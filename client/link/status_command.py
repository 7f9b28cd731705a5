"""gliofed-client status: what runs at a hospital, what went wrong, and what left it."""

import json
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.approve import approved
from gliofed.client.link.node import activity, is_of_now, read_state
from gliofed.client.link.preflight import lacking_room, read_own_kit, tried
from gliofed.client.link.reach import Findings
from gliofed.client.link.receipts import reason_of
from gliofed.client.link.site_file import own_folder, read_site
from gliofed.client.link.start import running
from gliofed.shared.audit import events_of
from gliofed.shared.join_request import read_request
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.terminal import cell, plain
from gliofed.shared.wording import quantity

LEFT_OVER = "start was killed, and its SuperNode is still running unwatched; start again, which ends it"
RECEIPTS = 10
"""The newest of the audit log that are shown."""
WIDE = 110
"""Columns of a terminal from which the table has all of its own; less wide ones show a reply in a line."""
NEXT = {
    "prepare": "to train, once the aggregator has asked every site",
    "train": "to evaluate, or to train the next round, once the other sites have answered",
    "evaluate": "to train the next round, unless this was the last",
}
"""After a request that was done: what the aggregator asks then. Only the aggregator knows how many rounds a run has."""
AGAIN = "to be asked again, in this round or in the next"
REFUSED = "to be asked again in the next round, if the run has one; it continues without this site until then"
LONGEST_RESULT = 9
"""Characters of a code in a line of the others."""


def status(folder: Path, as_json: bool = False) -> int:
    """Show it; 0. Raises ConfigError where the folder is no hospital's; whatever else is damaged is said instead."""
    folder = own_folder(folder)
    found = _gather(folder)
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)
    return 0


def _gather(folder: Path) -> dict[str, Any]:
    findings = Findings()
    found: dict[str, Any] = {"folder": str(folder), "faults": findings.faults, "warnings": findings.warnings}
    found |= dict.fromkeys(("site", "federation", "refused_code", "privacy", "log", "patients")) | {"withdrawn": 0}
    events: list[dict[str, Any]] = []
    if site := tried(lambda: read_site(folder), findings):
        # First, for it takes seconds: the rest is of one moment.
        found["privacy"] = tried(lambda: _privacy(site), findings)
        events = tried(lambda: events_of(site.folder.root), findings) or []
        counts = Counter(event["event"] for event in events)
        found["withdrawn"] = counts["withdrawn"] - counts["readmitted"]
        found["log"] = str(site.folder.log)
        findings.faults += filter(None, [lacking_room(folder, site)])
        from gliofed.client.doctor.left_out import left_out_warnings  # takes a second

        findings.warnings += tried(lambda: left_out_warnings(site), findings) or []
    if kit := tried(lambda: read_own_kit(folder), findings):
        found |= {"site": kit.site, "federation": kit.federation, "address": kit.address}
        request = folder / f"{kit.site}.request.json"  # has the ceiling; an older version stated none
        if request.exists():
            found["patients"] = tried(lambda: read_request(request)[0].patients, findings)
    known = tried(lambda: approved(folder), findings) or ()
    found["approved"] = [{"sha256": each.sha256, "time": each.time} for each in known]
    receipts = [event for event in events if event["event"] == "receipt"]
    found["receipts"] = [_receipt(event) for event in receipts[-RECEIPTS:]]
    refused = [event for event in events if event["event"] == "code_refused"]
    if refused and refused[-1]["sha256"] not in {each.sha256 for each in known}:
        found["refused_code"] = {key: refused[-1][key] for key in ("time", "sha256")}
    found |= {"asked": _asked(events)} | _now_running(folder, events)
    found["problem"] = _problem(folder, found["contact"])
    return found


def _now_running(folder: Path, events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the SuperNode does; a request of which the site's own log tells has the run's name."""
    pid, state = running(folder), read_state(folder)
    about = {"pid": pid, "contact": state.get("contact"), "run": None, "round": None, "since": None}
    if pid is None:
        return {**about, "doing": LEFT_OVER if is_of_now(state) else "not running"}
    if not is_of_now(state):
        return {**about, "doing": "starting"}
    about["since"] = state["since"]
    if state["state"] == "working":
        about["round"] = state["round"]
        asked = [event for event in events if event["event"] == "request"]
        if asked and datetime.fromisoformat(asked[-1]["time"]) >= datetime.fromisoformat(state["since"]):
            about |= {"run": asked[-1]["run_id"], "round": asked[-1]["round"]}
    return {**about, "doing": activity(state)}


def _asked(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What the site was asked last, what it did and what comes next; None: it was asked nothing yet."""
    request: dict[str, Any] | None = None
    answer: dict[str, Any] | None = None
    for event in events:
        if event["event"] == "request":
            request, answer = event, None
        elif event["event"] == "receipt":
            answer = answer or event
        elif event["event"] == "error_sent":
            about = event.get("kind"), event["round"]
            if request is None or about != (request["kind"], str(request["round"])):
                request = event  # its program ended before it noted the request
            answer = event
    if request is None:
        return None
    asked = {key: request.get(key) for key in ("time", "kind", "run_id", "round")}
    asked |= {"answered": None, "code": None, "error": None}
    if answer is None:
        return asked | {"next": "its reply, or an error if its program is ended"}
    if answer["event"] == "error_sent":
        from gliofed.shared.messages import error_words  # Flower takes a second to load

        return asked | {"error": {"time": answer["time"], "sentence": error_words(answer["code"])}, "next": AGAIN}
    held_back = asked["kind"] == "evaluate" and answer["code"] in ("withheld", "few_validation")  # its update counted
    coming = NEXT.get(str(asked["kind"]), "") if answer["status"] == "ok" or held_back else REFUSED
    return asked | {"answered": answer["time"], "code": answer["code"], "next": coming}


def _receipt(event: dict[str, Any]) -> dict[str, Any]:
    """What left with one reply."""
    update = next((record for record in event["records"] if record["name"] == "update/bytes"), None)
    keys = ("time", "run_id", "round", "kind", "status", "code", "epsilon", "patients", "left_out", "metrics")
    return {
        **{key: event[key] for key in keys},
        "reason": reason_of(event),
        "bytes": sum(record["bytes"] for record in event["records"]),
        "tensors": sum("shape" in record and record["bytes"] > 0 for record in event["records"]),
        "sha256": update["sha256"] if update and update["bytes"] else None,
    }


def _privacy(site: SiteConfig) -> dict[str, Any] | None:
    """Epsilon of each patient so far, and its ceiling; None where the site has no ledger."""
    if not site.folder.ledger.exists():  # nothing is loaded
        return None
    from gliofed.client.round.ledger import read_ledger

    if (ledger := read_ledger(site.folder.ledger)) is None:
        return None
    spent = ledger.epsilon() if ledger.private else None
    return {"epsilon": spent, "delta": ledger.delta, "ceiling": site.policy.max_epsilon, "private": ledger.private}


def _problem(folder: Path, contact: str | None) -> dict[str, Any] | None:
    """The last one, and whether there was a contact after it."""
    try:
        found = json.loads(HospitalFolder(folder).problem.read_text())
        problem: dict[str, Any] = {"time": str(found["time"]), "sentence": str(found["sentence"]), "over": False}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(ValueError, TypeError):  # no contact yet
        problem["over"] = datetime.fromisoformat(str(contact)) > datetime.fromisoformat(problem["time"])
    return problem


def _show(found: dict[str, Any]) -> None:
    run = f" of run {found['run']}" if found["run"] else ""
    since = f" since {found['since']}" if found["since"] else ""
    lines = [f"{found['site'] or '?'} of {found['federation'] or '?'}: {found['doing']}{run}{since}"]
    lines.append(f"last contact: {found['contact'] or 'none yet'}")
    if problem := found["problem"]:
        last = "last problem, over by now" if problem["over"] else "last problem"
        lines.append(f"{last}: {problem['time']} {problem['sentence']}")
    if asked := found["asked"]:
        lines += _last_asked(asked)
    stated = "not known here" if found["patients"] is None else f"at most {found['patients']}"
    lines.append(f"patients as stated to the aggregator: {stated}")
    codes = [f"{each['sha256'][:16]} ({each['time']})" for each in found["approved"]]
    lines.append(f"approved code: {', '.join(codes) or 'none'}")
    if refused := found["refused_code"]:
        lines.append(f"refused code: {refused['sha256']} ({refused['time']}); approve it, if it should run here")
    if privacy := found["privacy"]:
        not_private = "cannot be told: a run in test mode is not private"
        spent = f"{privacy['epsilon']:.3f}" if privacy["private"] else not_private
        ceiling = f"{privacy['ceiling']:g}" if privacy["ceiling"] is not None else "none"
        lines.append(f"epsilon of each patient: {spent} at delta={privacy['delta']:.3g}; ceiling: {ceiling}")
    if withdrawn := found["withdrawn"]:
        patients = quantity(withdrawn, "patient")
        lines.append(f"consent withdrawn: {patients}; gliofed-client check with the work folder names them")
    lines += [f"fault: {fault}" for fault in found["faults"]]
    lines += [f"warning: {warning}" for warning in found["warnings"]]
    for line in lines:
        print(plain(line))
    if found["receipts"]:
        _table(found["receipts"])
    why = {each["code"]: each["reason"] for each in found["receipts"] if each["reason"]}
    for code, reason in why.items():
        print(plain(f"{code}: {reason}; the detail is in {found['log']}"))


def _last_asked(asked: dict[str, Any]) -> list[str]:
    about = f"to {asked['kind']}" + (f" round {asked['round']}" if asked["round"] is not None else "")
    did = f"answered {asked['answered']}: {asked['code']}" if asked["answered"] else "not answered yet"
    if error := asked["error"]:
        did = f"no answer, but an error was sent {error['time']}: {error['sentence']}"
    return [f"last asked: {asked['time']} {about} of run {asked['run_id'] or '?'}; {did}", f"next: {asked['next']}"]


def _table(receipts: list[dict[str, Any]]) -> None:
    """What left the house, a row a reply."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    wide = console.width >= WIDE
    table = Table(title="What left, newest last", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("local time", "run", "round", "kind", "result", "bytes", *["tensors", "hash"] * wide, "told"):
        table.add_column(heading, no_wrap=heading not in ("result", "told"), overflow="fold")
    table.columns[4].max_width = None if wide else LONGEST_RESULT
    for each in receipts:
        time = f"{datetime.fromisoformat(each['time']).astimezone():%m-%d %H:%M}"
        row = [time, str(each["run_id"])[: 12 if wide else 8], each["round"], each["kind"], each["code"], each["bytes"]]
        row += [each["tensors"], (each["sha256"] or "")[:12]] * wide + [_reported(each)]
        table.add_row(*map(cell, row))
    console.print(table)


def _reported(receipt: dict[str, Any]) -> str:
    """What a reply told in numbers, shortened: --json names each."""
    numbers = {"patients": receipt["patients"], "left out": sum(receipt["left_out"].values())}
    numbers["metrics"] = len(receipt["metrics"])
    reported = [f"{name} {count}" for name, count in numbers.items() if count]
    return ", ".join(reported + [f"epsilon {receipt['epsilon']}"] * (receipt["epsilon"] is not None))
