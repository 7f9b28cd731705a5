"""Runs, one at a time in the order in which they are wanted: submitted to Flower, and again where its run broke."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from server.control import Control
from server.members import Member
from server.runs import NODES, Run, Submission, runs_of
from shared.files import write_json

PAUSES = (2, 5, 15, 30, 60)
"""Seconds before each further submission; the last stays."""
MOST_TRIES = 10
"""Submissions without one new round, after which a run is given up."""


@dataclass
class Runner:
    """What `start` does for the runs of a federation's `folder`."""

    folder: Path
    control: Control
    clock: Callable[[], float] = time.monotonic
    _due: dict[str, float] = field(default_factory=dict)

    def forget(self) -> None:
        """Stop what a SuperLink that is new remembers: the servers of those runs died with the one before."""
        for run in self.control.unfinished():
            self.control.stop_run(run)

    def tend(self, members: Mapping[str, Member]) -> list[str]:
        """Go on with every run as is wanted; return what was done. Raises ControlError and ConfigError."""
        going, said = self.control.unfinished(), []
        runs = runs_of(self.folder)
        for run in runs:
            said += self._look(run, going)
        if not any(run.submission().flower for run in runs):
            current = next((run for run in runs if run.state()[0] == "waiting"), None)
            said += self._submit(current, members) if current else []
        for run in runs:
            if run.submission().flower:
                write_nodes(run, members)  # a site that was admitted meanwhile is asked from the next round on
        return said

    def _look(self, run: Run, going: Mapping[int, str]) -> list[str]:
        """Note that Flower's run ended; stop one that is not wanted any more."""
        submission = run.submission()
        if submission.flower is None:
            return []
        if submission.flower in going:
            if run.wanted().wanted == "stop":
                self.control.stop_run(submission.flower)
            return []
        run.submitted(replace(submission, flower=None))
        if end := run.ended():
            return [f"run {run.name}: {end['status']}"]
        if run.wanted().wanted == "stop":
            return [f"run {run.name}: stopped"]
        pause = PAUSES[min(max(submission.tries, 1), len(PAUSES)) - 1]
        self._due[run.name] = self.clock() + pause
        return [f"run {run.name}: its server ended, see {run.log}; again in {pause} s"]

    def _submit(self, run: Run, members: Mapping[str, Member]) -> list[str]:
        submission, rounds = run.submission(), run.finished_rounds()
        if self.clock() < self._due.get(run.name, 0.0):
            return []
        tries = 0 if rounds > submission.rounds else submission.tries
        if tries >= MOST_TRIES:
            reason = f"its server ended {tries} times without a new round; see {run.log}, then run resume={run.name}"
            run.submitted(replace(submission, gave_up=reason))
            return [f"run {run.name}: {reason}"]
        write_nodes(run, members)
        flower = self.control.start_run((self.folder / "code.fab").read_bytes(), {"out": str(run.folder)})
        since = run.wanted().since
        run.submitted(Submission(since=since, flower=flower, tries=tries + 1, rounds=rounds))
        return [f"run {run.name}: submitted"]


def write_nodes(run: Run, members: Mapping[str, Member]) -> None:
    """Write which site each node is, where that has changed."""
    nodes, file = {str(member.node): site for site, member in members.items()}, run.folder / NODES
    if not file.exists() or json.loads(file.read_text()) != nodes:
        write_json(file, nodes)
