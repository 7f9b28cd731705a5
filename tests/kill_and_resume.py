"""Run a federation, kill it at a point, resume it; in forks of this process, since importing takes seconds."""

from collections.abc import Sequence
from pathlib import Path

import monai.data.synthetic  # noqa: F401  # once here, and not in every fork
import torch._dynamo  # noqa: F401  # two seconds that an optimiser would take at its first step
from forks import end_of, in_fork, on_call
from small_run import composed

import gliofed.client.round.work
import gliofed.server.round.best
import gliofed.server.round.rounds
import gliofed.shared.checkpoint
from gliofed.client.round.outbox import Outbox
from gliofed.client.round.states import States
from gliofed.server.round.history import History
from gliofed.server.round.spool import Spool, Spooled
from gliofed.simulation.grid import LocalGrid
from gliofed.simulation.simulate import simulate

OVERRIDES = (
    "sites=3",
    "rounds=3",
    "round.evaluate_every=2",
    "train.steps=1",
    "data.patients=14",
    "data.validation=0.4",
    "data.test=0.2",
    "strategy=fedavgm",
    "strategy.average=0.5",
    "codec=int8",
    "faults={site-3:zero_patients,site-2:flip}",
)
"""A site that is honest, one that is clipped and one that is refused each round."""


def die_in_set_aside() -> None:
    """Kill between the two files of a refused reply, in round 2."""
    original = Spool.set_aside

    def patched(spool: Spool, reply: Spooled, refused: Path) -> None:
        if spool.folder.name == "round-0002":
            on_call(Path, "replace", 1, after=True)()
        original(spool, reply, refused)

    Spool.set_aside = patched  # type: ignore[method-assign]


# Round 1 is whole, round 2 is killed. Messages go out one by one: 3 to prepare, 3 to train, 3 to train, 3 to evaluate.
POINTS = {
    "asking": on_call(LocalGrid, "push_messages", 9, after=True),
    "first-reply-spooled": on_call(Spool, "add", 4, after=True),
    "folding": on_call(gliofed.server.round.rounds, "fold", 2, after=False),
    "half-written-checkpoint": on_call(gliofed.shared.checkpoint, "write_json", 2, after=False),
    "checkpoint-saved": on_call(Spool, "clear", 2, after=False),
    "evaluating": on_call(LocalGrid, "push_messages", 11, after=True),
    "history-half-written": on_call(History, "append", 3, after=False),  # start, round 1, round 2
    "refused-half-set-aside": die_in_set_aside,
    "best-model-exported": on_call(gliofed.server.round.best, "export_model", 1, after=True),
    "last-model-exported": on_call(gliofed.server.round.rounds, "export_model", 1, after=True),
    "testing": on_call(LocalGrid, "push_messages", 20, after=True),  # round 3 has 6, then the 2 that counted are asked
    "test-not-written": on_call(History, "append", 5, after=False),
}


OF_SITES = {
    "state-stored": on_call(States, "store", 4, after=True),
    "reply-stored": on_call(Outbox, "store", 4, after=True),
}
"""In round 2, at the first site that is ready, of a run in which sites keep something."""

OF_INIT = {"given-weights-measured": on_call(History, "append", 2, after=False)}
"""In a run that was given weights, before the line of their evaluation is written."""


def run(folder: Path, name: str, words: Sequence[str] = ()) -> None:
    """Run undisturbed, or until `name`'s point."""
    if point := (POINTS | OF_SITES | OF_INIT).get(name):
        point()
    simulate(composed(*OVERRIDES, *words, f"data.root={folder / 'data'}", f"out={folder / name}"))


def resume(out: Path, words: Sequence[str] = ()) -> None:
    if out.name == "history-half-written":
        with (out / "history.jsonl").open("a") as file:
            file.write('{"event":"rou')
    simulate(composed(*OVERRIDES, *words, f"resume={out}"))


def kill_and_resume(folder: Path, names: list[str], words: Sequence[str] = ()) -> dict[str, int]:
    """Two at a time, for two cores; the undisturbed run comes first, which writes the data of all."""
    ends = {"undisturbed": end_of(in_fork(lambda: run(folder, "undisturbed", words)))}
    for pair in (names[start : start + 2] for start in range(0, len(names), 2)):
        pids = [in_fork(lambda name=name: run(folder, name, words)) for name in pair]  # type: ignore[misc]
        ends |= dict(zip(pair, map(end_of, pids), strict=True))
        pids = [in_fork(lambda name=name: resume(folder / name, words)) for name in pair]  # type: ignore[misc]
        resumed = dict(zip(pair, map(end_of, pids), strict=True))
        assert set(resumed.values()) == {0}, resumed
    return ends
