"""Runs, one at a time in the order in which they are wanted: submitted to Flower, and again where its run broke."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gliofed.server.link.control import Control
from gliofed.server.link.members import Member
from gliofed.server.link.runs import Run, Submission, announce, runs_of
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.server.report.page.page import write_page
from gliofed.shared.files import write_json
from gliofed.shared.parse import ConfigError

PAUSES = (2, 5, 15, 30, 60)
"""Seconds before each further submission; the last stays."""
MOST_TRIES = 10
"""Submissions without one new round, after which a run is given up."""
SPARE = 2**30
"""Bytes that must be free on the disk, or no run is submitted: it would use up its tries."""


@dataclass
class Runner:
    """What `start` does for the runs of a federation's `folder`."""

    folder: Path
    control: Control
    clock: Callable[[], float] = time.monotonic
    troubles: list[str] = field(default_factory=list)
    """What is wrong with runs, as of the last look."""
    _due: dict[str, float] = field(default_factory=dict)
    _pending: float | None = None
    """Since when Flower has had a run without a server."""
    _drawn: dict[str, float] = field(default_factory=dict)
    """When the history of each run whose report was drawn was written last."""

    def forget(self) -> None:
        """Stop what a SuperLink that is new remembers: the servers of those runs died with the one before."""
        for run in self.control.unfinished():
            self.control.stop_run(run)

    def pending(self) -> float:
        """Seconds that a run has waited at Flower for its server."""
        return 0.0 if self._pending is None else self.clock() - self._pending

    def supervise(self, members: Mapping[str, Member]) -> list[str]:
        """Go on with every run as is wanted; return what was done. Raises ControlError, and OSError.

        A run of which a file is damaged is left alone, and is among the troubles.
        """
        going, messages = self.control.unfinished(), []
        waits = "pending" in going.values()
        self._pending = (self.clock() if self._pending is None else self._pending) if waits else None
        self.troubles = []
        runs, named = [], set()
        for run in runs_of(self.folder):
            try:
                submission = run.submission()
                named.add(submission.flower)
                messages += self._look(run, submission, going)
                runs.append((run, run.submission().flower, run.state()[0]))
                self._draw(run)
            except (ConfigError, OSError) as error:
                self.troubles.append(f"run {run.name}: {error}")
        if not self.troubles:  # else it may be the run that cannot be read now
            for unknown in going.keys() - named:
                self.control.stop_run(unknown)  # started just before this program was killed, say, and not noted
        current = [run for run, flower, _ in runs if flower is not None]
        for run in [run for run, _, state in runs if state == "waiting" and not going]:
            try:
                messages += self._submit(run, members)
                break
            except ConfigError as error:  # its code is lost, or a checkpoint damaged: the next one has its turn
                self.troubles.append(f"run {run.name}: {error}")
        for run in current:
            write_members(run, members)  # a site that has a new key, or number, is asked by it from the next round on
        return messages

    def _look(self, run: Run, submission: Submission, going: Mapping[int, str]) -> list[str]:
        """Note that Flower's run ended; stop one that is not wanted any more."""
        if submission.flower is None:
            return []
        if submission.flower in going:
            if run.wanted().wanted == "stop":
                self.control.stop_run(submission.flower)
            return []
        run.submitted(replace(submission, flower=None))
        if end := run.ended():
            return [f"run {run.name}: {end['status']}{': ' + end['reason'] if 'reason' in end else ''}"]
        if run.wanted().wanted == "stop":
            return [f"run {run.name}: stopped"]
        pause = PAUSES[min(max(submission.tries, 1), len(PAUSES)) - 1]
        self._due[run.name] = self.clock() + pause
        return [f"run {run.name}: its server ended, see {self._log(run)}; again in {pause} s"]

    def _submit(self, run: Run, members: Mapping[str, Member]) -> list[str]:
        submission, rounds = run.submission(), run.finished_rounds()
        if self.clock() < self._due.get(run.name, 0.0):
            return []
        tries = 0 if rounds > submission.rounds else submission.tries
        if tries >= MOST_TRIES:
            log = self._log(run)
            reason = f"its server ended {tries} times without a new round; see {log}, then {run.resume_command}"
            run.submitted(replace(submission, gave_up=reason))
            return [f"run {run.name}: {reason}"]
        if shutil.disk_usage(self.folder).free < SPARE:
            self.troubles.append(f"{self.folder}: less than {SPARE / 2**30:g} GiB is free; make room, and runs go on")
            return []
        run.check()
        code = run.code()
        write_members(run, members)
        run.files.progress.unlink(missing_ok=True)  # of a server that was killed
        # Flower trusts what it has unpacked, also where a full disk or a kill left half of it.
        if (unpacked := FederationFolder(self.folder).apps).exists():
            shutil.rmtree(unpacked)
        run.submitted(submission)  # where nothing can be noted, no server may start that nobody knows of
        flower = self.control.start_run(code, {"submission": announce(run)})
        since = run.wanted().since
        run.submitted(Submission(since=since, flower=flower, tries=tries + 1, rounds=rounds))
        return [f"run {run.name}: {'goes on' if run.events() else 'submitted'}"]

    def _draw(self, run: Run) -> None:
        """Draw a run's report anew, where its history has gone on. Here, for Flower's bundles hold no templates."""
        page, written = run.files.page, run.last_written()
        if written > self._drawn.get(run.name, page.stat().st_mtime if page.exists() else 0.0):
            write_page(run.folder)
            self._drawn[run.name] = written

    def _log(self, run: Run) -> Path:
        """What its server said; the SuperLink's where it ended before it had a log of its own."""
        return log if (log := run.files.log).exists() else FederationFolder(self.folder).superlink_log


def write_members(run: Run, members: Mapping[str, Member]) -> None:
    """Write which site each node is, and each site's agreed number of patients, where that has changed."""
    # The numbers first: no node is asked whose number is not there yet.
    _write_changed(run.files.agreed, {site: each.patients for site, each in members.items() if each.patients})
    _write_changed(run.files.nodes, {str(each.node): site for site, each in members.items()})


def _write_changed(file: Path, values: Mapping[str, Any]) -> None:
    known = None
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text())
    if known != values:
        write_json(file, values)
