"""What a simulation says when it has ended: where its results are, or what went wrong and what goes on with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliofed.server.round.failing import DIVERGED
from gliofed.shared.messages import CODES
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.terminal import command_line
from gliofed.shared.work_folder import WorkFolder
from gliofed.simulation.settings import ReportSettings


def resume_command(out: Path) -> str:
    """What goes on with the run in this folder."""
    return command_line("gliofed-simulate", f"resume={out}")


def _logs(out: Path, before: str) -> str:
    """Where sites wrote what went wrong; nothing, where none did."""
    logs = [log for site in sorted(SimulationFolder(out).sites.glob("*")) if (log := WorkFolder(site).log).exists()]
    return f"{before}{', '.join(map(str, logs[:3]))}{', ...' * (len(logs) > 3)}" if logs else ""


def result_sentence(status: str, end: Mapping[str, Any], out: Path, shows: ReportSettings) -> str:
    """What came of the run in this folder, whose history ends with `end`."""
    if status == "incomplete" and "reason" in end:
        return f"{end['reason']}, in {out}/model"
    if status == "failed":
        first = ""
        if CODES["state"] in end["reason"]:
            first = f"{command_line('gliofed-server', 'anew', out, 'SITE')} for each such site, then "
        cure = "" if DIVERGED in end["reason"] else f"; {first}go on with {resume_command(out)}"
        return f"{end['reason']}{_logs(out, '; what went wrong there: ')}{cure}"
    if status == "incomplete":
        return f"a site did not count in some round: see {out}/history.jsonl{_logs(out, ', and ')}"
    page, plots = "report.html, " * shows.page, "plots, " * shows.plots
    more = ", comparison.json, baselines" if SimulationFolder(out).comparison.exists() else ""
    return f"results in {out}: {page}history.jsonl, {plots}checkpoints, model{more}"
