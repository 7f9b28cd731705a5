"""Run a federation, kill it at a point, resume it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai.data.synthetic  # noqa: F401  # once, where it is forked from
import torch._dynamo  # noqa: F401  # two seconds that an optimiser would take at its first step
from forks import OnCall, end_of, started
from small_run import composed

from gliofed.server.round.spool import Spool, Spooled
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
            OnCall("pathlib:Path", "replace", 1, after=True)()
        original(spool, reply, refused)

    Spool.set_aside = patched  # type: ignore[method-assign]


# Round 1 is whole, round 2 is killed. Messages go out one by one: 3 to prepare, 3 to train, 3 to train, 3 to evaluate.
POINTS = {
    "asking": OnCall("gliofed.simulation.grid:LocalGrid", "push_messages", 9, after=True),
    "first-reply-spooled": OnCall("gliofed.server.round.spool:Spool", "add", 4, after=True),
    "folding": OnCall("gliofed.server.round.rounds", "fold", 2),
    "half-written-checkpoint": OnCall("gliofed.shared.checkpoint", "write_json", 2),
    "checkpoint-saved": OnCall("gliofed.server.round.spool:Spool", "clear", 2),
    "evaluating": OnCall("gliofed.simulation.grid:LocalGrid", "push_messages", 11, after=True),
    "history-half-written": OnCall("gliofed.server.round.history:History", "append", 3),  # start, round 1, round 2
    "refused-half-set-aside": die_in_set_aside,
    "best-model-exported": OnCall("gliofed.server.round.best", "export_model", 1, after=True),
    "last-model-exported": OnCall("gliofed.server.round.rounds", "export_model", 1, after=True),
    # Round 3 has 6 messages, then the 2 that counted are asked.
    "testing": OnCall("gliofed.simulation.grid:LocalGrid", "push_messages", 20, after=True),
    "test-not-written": OnCall("gliofed.server.round.history:History", "append", 5),
}


OF_SITES = {
    "state-stored": OnCall("gliofed.client.round.states:States", "store", 4, after=True),
    "reply-stored": OnCall("gliofed.client.round.outbox:Outbox", "store", 4, after=True),
}
"""In round 2, at the first site that is ready, of a run in which sites keep something."""

OF_INIT = {"given-weights-measured": OnCall("gliofed.server.round.history:History", "append", 2)}
"""In a run that was given weights, before the line of their evaluation is written."""


def run(folder: Path, name: str, words: Sequence[str] = ()) -> Any:
    """A process that runs undisturbed, or until `name`'s point."""
    values = composed(*OVERRIDES, *words, f"data.root={folder / 'data'}", f"out={folder / name}")
    return started(simulate, values, killed=(POINTS | OF_SITES | OF_INIT).get(name))


def resume(out: Path, words: Sequence[str] = ()) -> Any:
    """A process that goes on with the run."""
    if out.name == "history-half-written":
        with (out / "history.jsonl").open("a") as file:
            file.write('{"event":"rou')
    return started(simulate, composed(*OVERRIDES, *words, f"resume={out}"))


def kill_and_resume(folder: Path, names: list[str], words: Sequence[str] = ()) -> dict[str, int]:
    """Two at a time, for two cores; the undisturbed run comes first, which writes the data of all."""
    ends = {"undisturbed": end_of(run(folder, "undisturbed", words))}
    for pair in (names[start : start + 2] for start in range(0, len(names), 2)):
        runs = [run(folder, name, words) for name in pair]
        ends |= dict(zip(pair, map(end_of, runs), strict=True))
        runs = [resume(folder / name, words) for name in pair]
        resumed = dict(zip(pair, map(end_of, runs), strict=True))
        assert set(resumed.values()) == {0}, resumed
    return ends
