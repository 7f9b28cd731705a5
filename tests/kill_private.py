"""Kill a private federation in the middle of round 2 of 3, and resume it twice with the command."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from forks import OnCall, end_of, started
from small_run import composed

import gliofed.client.round.private_work
from gliofed.simulation.cli import main as command
from gliofed.simulation.simulate import simulate

SITES = 2
WORDS = (
    f"sites={SITES}",
    "at_once=1",
    "rounds=3",
    f"round.quorum={SITES}",
    "data.patients=3",
    "data.validation=0",
    "train.steps=2",
)
MORE = {"dp_sgd": ("privacy.patches=1", "privacy.batch=100")}
"""All patients are in each step, whatever number is drawn to be told."""
SECOND_OF_ROUND_2 = 2 * SITES
"""Calls, until the site that takes its turn last trains in round 2."""


def die_between_two_steps() -> None:
    """Of the second site in round 2: its steps are charged, and the first one is taken."""
    original, calls = gliofed.client.round.private_work.train_privately, 0

    def patched(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == SECOND_OF_ROUND_2:
            OnCall("gliofed.client.round.privacy", "_step", 4)()  # three patients make one step
        return original(*args)  # type: ignore[arg-type]

    gliofed.client.round.private_work.train_privately = patched  # type: ignore[assignment]


KILL: dict[str, Callable[[], None]] = {
    "dp_sgd": die_between_two_steps,
    "local_update": OnCall("gliofed.client.round.private_work", "hide", SECOND_OF_ROUND_2),
    "central": OnCall("gliofed.server.round.rounds", "noisy_mean", 2, after=True),
}
"""What is done to the process before it runs; in each case the second round is charged by then."""


def resume(out: Path, output: Path) -> None:
    sys.stdout, sys.argv = output.open("w"), ["gliofed-simulate", f"resume={out}"]
    try:
        command()
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(int(end.code or 0))


def kill_and_resume_twice(folder: Path, mechanism: str) -> list[int]:
    """How the three processes ended; keeps what the command printed, and the history after each resume."""
    out = folder / "out"
    values = composed(*WORDS, f"privacy={mechanism}", *MORE.get(mechanism, ()), f"out={out}")
    ends = [end_of(started(simulate, values, killed=KILL[mechanism]))]
    for number in (1, 2):
        ends.append(end_of(started(resume, out, folder / f"resume-{number}.txt")))
        (folder / f"history-{number}.jsonl").write_bytes((out / "history.jsonl").read_bytes())
    return ends
