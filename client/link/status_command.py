"""gliofed-client status: what runs at a hospital, what went wrong, and what left it."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from client.link.approve import approved
from client.link.node import PROBLEM, read_state, running, words_of
from client.link.preflight import own_folder, read_own_kit
from client.link.site_file import read_site
from shared.audit import audit_file
from shared.chain import begun, read_chain, read_head
from shared.parse import ConfigError
from shared.site_config import SiteConfig
from shared.terminal import plain

LEFT_OVER = "start was killed, and its SuperNode goes on unwatched; start again, which ends that one"
RECEIPTS = 10
"""The newest of the audit log that are shown."""


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
    faults: list[str] = []
    found: dict[str, Any] = {"folder": str(folder), "faults": faults, "site": None, "federation": None}
    found |= {"receipts": [], "refused_code": None, "privacy": None, "approved": []}
    site: SiteConfig | None = None
    try:
        kit = read_own_kit(folder)
        found |= {"site": kit.site, "federation": kit.federation, "address": kit.address}
    except (ConfigError, OSError) as error:
        faults.append(str(error))
    try:
        found["approved"] = [{"sha256": each.sha256, "time": each.time} for each in approved(folder)]
    except (ConfigError, OSError) as error:
        faults.append(str(error))
    try:
        site = read_site(folder)
    except (ConfigError, OSError) as error:
        faults.append(str(error))
    events: list[dict[str, Any]] = []
    if site:
        try:
            events = _events(site)
            found["privacy"] = _privacy(site)
        except (ConfigError, OSError) as error:
            faults.append(str(error))
    receipts = [event for event in events if event["event"] == "receipt"]
    found["receipts"] = [_receipt(event) for event in receipts[-RECEIPTS:]]
    refused = [event for event in events if event["event"] == "code_refused"]
    found["refused_code"] = {key: refused[-1][key] for key in ("time", "sha256")} if refused else None
    return found | _now_running(folder, events) | {"problem": _problem(folder)}


def _now_running(folder: Path, events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the SuperNode does; a request of which the site's own log tells has the run's name."""
    pid, state = running(folder), read_state(folder)
    about = {"pid": pid, "contact": state.get("contact"), "run": None, "round": None, "since": None}
    if pid is None:
        return {**about, "doing": LEFT_OVER if _is_supernode(state.get("pid")) else "not running"}
    if not state:
        return {**about, "doing": "starting"}
    about["since"] = state["since"]
    if state["state"] == "working":
        about["round"] = state["round"]
        asked = [event for event in events if event["event"] == "request"]
        if asked and datetime.fromisoformat(asked[-1]["time"]) >= datetime.fromisoformat(state["since"]):
            about |= {"run": asked[-1]["run_id"], "round": asked[-1]["round"]}
    return {**about, "doing": words_of(state)}


def _is_supernode(pid: Any) -> bool:
    """Whether the process that the last state is of still runs."""
    try:
        return b"client.link.supernode" in Path(f"/proc/{int(pid)}/cmdline").read_bytes()
    except (OSError, ValueError, TypeError):
        return False


def _events(site: SiteConfig) -> list[dict[str, Any]]:
    file = audit_file(Path(site.work))
    if not begun(file):
        return []
    head = read_head(file.parent / "head.json")
    return read_chain(file, "", head).events()


def _receipt(event: dict[str, Any]) -> dict[str, Any]:
    """What left with one reply."""
    update = next((record for record in event["records"] if record["name"] == "update/bytes"), None)
    told = {"patients": event["patients"], "left_out": event["left_out"], "metrics": event["metrics"]}
    return {
        **{key: event[key] for key in ("time", "run_id", "round", "kind", "status", "code", "epsilon")},
        **told,
        "bytes": sum(record["bytes"] for record in event["records"]),
        "tensors": sum("shape" in record and record["bytes"] > 0 for record in event["records"]),
        "sha256": update["sha256"] if update and update["bytes"] else None,
    }


def _privacy(site: SiteConfig) -> dict[str, Any] | None:
    """Epsilon of each patient so far, and its ceiling; None where the site has no ledger."""
    from client.round.ledger import ledger_folder, read_ledger  # Opacus takes seconds to load

    folder = ledger_folder(site.work)
    if not folder.exists() or (ledger := read_ledger(folder)) is None:
        return None
    spent = ledger.epsilon() if ledger.private else None
    return {"epsilon": spent, "delta": ledger.delta, "ceiling": site.policy.max_epsilon, "private": ledger.private}


def _problem(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / PROBLEM).read_text())
        return {"time": str(found["time"]), "sentence": str(found["sentence"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _show(found: dict[str, Any]) -> None:
    lines = [f"{found['site'] or '?'} of {found['federation'] or '?'}: {_doing(found)}"]
    lines.append(f"last contact: {found['contact'] or 'none yet'}")
    if problem := found["problem"]:
        lines.append(f"last problem: {problem['time']} {problem['sentence']}")
    codes = [f"{each['sha256'][:16]} ({each['time']})" for each in found["approved"]]
    lines.append(f"approved code: {', '.join(codes) or 'none'}")
    if refused := found["refused_code"]:
        lines.append(f"refused code: {refused['sha256']} ({refused['time']}); approve it, if it should run here")
    if privacy := found["privacy"]:
        spent = (
            f"{privacy['epsilon']:.3f}" if privacy["private"] else "cannot be told: a run in test mode is not private"
        )
        ceiling = f"{privacy['ceiling']:g}" if privacy["ceiling"] is not None else "none"
        lines.append(f"epsilon of each patient: {spent} at delta={privacy['delta']:.3g}; ceiling: {ceiling}")
    lines += [f"fault: {fault}" for fault in found["faults"]]
    for line in lines:
        print(plain(line))
    if found["receipts"]:
        _table(found["receipts"])


def _doing(found: dict[str, Any]) -> str:
    run = f" of run {found['run']}" if found["run"] else ""
    since = f" since {found['since']}" if found["since"] else ""
    return f"{found['doing']}{run}{since}"


def _table(receipts: list[dict[str, Any]]) -> None:
    """What left the house, a row a reply."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("time", "run", "round", "kind", "result", title="What left, newest last")
    for heading in ("bytes", "tensors", "hash", "told"):
        table.add_column(heading)
    for each in receipts:
        told = [f"patients {each['patients']}"] * bool(each["patients"])
        told += [f"{code} {count}" for code, count in each["left_out"].items()] + list(each["metrics"])
        told += [f"epsilon {each['epsilon']}"] * (each["epsilon"] is not None)
        cells = (each["time"], str(each["run_id"])[:12], each["round"], each["kind"], each["code"], each["bytes"])
        row = [*cells, each["tensors"], (each["sha256"] or "")[:12], ", ".join(told)]
        table.add_row(*(Text(plain(str(cell))) for cell in row))
    Console().print(table)
