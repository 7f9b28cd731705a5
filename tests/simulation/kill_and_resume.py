"""Run a federation, kill it at a point, resume it; in forks of one process, since importing takes seconds.

usage: kill_and_resume.py FOLDER POINT...   (prints a line of JSON: point -> how the killed process ended)
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.data.synthetic  # noqa: F401  # once here, and not in every fork
import torch
import torch._dynamo  # two seconds that an optimiser would take at its first step
from small_run import composed

import gliofed.client.round.work
import gliofed.server.round.rounds
import gliofed.shared.checkpoint
from gliofed.server.round.history import History
from gliofed.server.round.spool import Spool, Spooled
from gliofed.simulation.grid import LocalGrid
from gliofed.simulation.simulate import simulate

Original = Callable[..., Any]
OVERRIDES = (
    "sites=3",
    "rounds=3",
    "train.steps=1",
    "data.patients=2",
    "strategy=fedavgm",
    "codec=int8",
    "faults={site-3:zero_patients,site-2:flip}",
)
"""A site that is honest, one that is clipped and one that is refused each round."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(owner: Any, name: str, number: int, *, after: bool) -> Callable[[], None]:
    """Make a function that patches `owner.name` to kill the process at its call `number`."""

    def patch() -> None:
        original: Original = getattr(owner, name)
        calls = 0

        def patched(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and not after:
                die()
            result = original(*args, **kwargs)
            if calls == number:
                die()
            return result

        setattr(owner, name, patched)

    return patch


def die_in_set_aside() -> None:
    """Kill between the two files of a refused reply, in round 2."""
    original = Spool.set_aside

    def patched(spool: Spool, reply: Spooled, refused: Path) -> None:
        if spool.folder.name == "round-0002":
            on_call(Path, "replace", 1, after=True)()
        original(spool, reply, refused)

    Spool.set_aside = patched  # type: ignore[method-assign]


# Round 1 is whole, round 2 is killed. Messages go out one by one: 3 to prepare, 3 to train, 3 to evaluate, 3 to train.
POINTS = {
    "asking": on_call(LocalGrid, "push_messages", 12, after=True),
    "first-reply-spooled": on_call(Spool, "add", 4, after=True),
    "folding": on_call(gliofed.server.round.rounds, "fold", 2, after=False),
    "half-written-checkpoint": on_call(gliofed.shared.checkpoint, "write_json", 2, after=False),
    "checkpoint-saved": on_call(Spool, "clear", 2, after=False),
    "evaluating": on_call(LocalGrid, "push_messages", 14, after=True),
    "history-half-written": on_call(History, "append", 3, after=False),  # start, round 1, round 2
    "refused-half-set-aside": die_in_set_aside,
    "last-model-exported": on_call(gliofed.server.round.rounds, "write_json", 1, after=True),
}


def in_fork(work: Callable[[], object]) -> int:
    """Start `work` in a child; return its process id."""
    pid = os.fork()
    if pid == 0:
        sys.stdout = open(os.devnull, "w")
        work()
        os._exit(0)
    return pid


def end_of(pid: int) -> int:
    """Exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(folder: Path, name: str) -> None:
    """Run undisturbed, or until `name`'s point."""
    if name in POINTS:
        POINTS[name]()
    simulate(composed(*OVERRIDES, f"data.root={folder / 'data'}", f"out={folder / name}"))


def resume(out: Path) -> None:
    if out.name == "history-half-written":
        with (out / "history.jsonl").open("a") as file:
            file.write('{"event":"rou')
    simulate(composed(*OVERRIDES, f"resume={out}"))


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # as in conftest.py: the system still has what a killed process wrote
    composed(*OVERRIDES)
    ends = {"undisturbed": end_of(in_fork(lambda: run(folder, "undisturbed")))}  # writes the data of all
    for pair in (names[start : start + 2] for start in range(0, len(names), 2)):  # two cores
        pids = [in_fork(lambda name=name: run(folder, name)) for name in pair]  # type: ignore[misc]
        ends |= dict(zip(pair, map(end_of, pids), strict=True))
        pids = [in_fork(lambda name=name: resume(folder / name)) for name in pair]  # type: ignore[misc]
        resumed = dict(zip(pair, map(end_of, pids), strict=True))
        assert set(resumed.values()) == {0}, resumed
    print(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
