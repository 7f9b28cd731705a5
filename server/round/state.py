"""What a run that was killed goes on from."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import rmtree

from torch import Tensor

from gliofed.server.round.history import Event, History
from gliofed.shared.algorithms.groups import Groups, joined
from gliofed.shared.checkpoint import load_checkpoint, save_checkpoint
from gliofed.shared.codec import EXACT, weights_to_bytes, weights_to_train_from
from gliofed.shared.codecs import CODECS
from gliofed.shared.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that a resumed run needs."""

    round: int
    """The last finished round; 0 before the first."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)
    """What is sent beside the weights."""
    parents: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the last update of each site that counted, where sites keep something."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """Of the weights of all rounds so far; empty without strategy.average."""
    codec: str = EXACT
    """How sites are asked to train: a key of `gliofed.shared.codecs.CODECS`."""
    event: Event | None = None
    """The round's line for the history; None where it is written."""

    @cached_property
    def coded(self) -> bytes:
        """The weights in full: made once, for the evaluation, and for training where no more is sent."""
        return weights_to_bytes(self.weights)

    @cached_property
    def asked(self) -> bytes:
        """The same with the groups beside them, coded, as sites are asked to train from."""
        if self.groups or CODECS[self.codec].sent:
            return weights_to_train_from(joined(self.weights, self.groups), self.codec)
        return self.coded

    @cached_property
    def coded_result(self) -> bytes:
        """What sites evaluate, and what is exported: the average where there is one, else the weights."""
        return weights_to_bytes(self.average) if self.average else self.coded


def save_state(out: Path, state: State) -> None:
    """Save the state, whole or not at all."""
    rest = {"round": state.round, "event": state.event} | ({"parents": state.parents} if state.parents else {})
    average = {"average": state.average} if state.average else {}
    tensors = {"model": state.weights, "optimizer": state.optimizer, **average, **state.groups}
    save_checkpoint(RunFolder(out).checkpoints, state.round, tensors, rest)


def load_state(out: Path, history: History, codec: str = EXACT) -> State | None:
    """Return the newest saved state; history and spool forget what came after it, and what it has used up."""
    found = load_checkpoint(RunFolder(out).checkpoints)
    newest = found[1]["round"] if found else 0
    history.forget_after(newest)
    # The next round's answers were made from these weights. Those of a later one were made from others: a round that is
    # trained anew, after somebody went back to an older checkpoint, may come out differently.
    for folder in RunFolder(out).spool.glob("round-*"):
        if int(folder.name.removeprefix("round-")) != newest + 1:
            rmtree(folder)
    if found is None:
        return None
    tensors, rest = found
    event = rest["event"] if rest["round"] > len(history.rounds()) else None
    return State(
        round=rest["round"],
        weights=tensors.pop("model"),
        optimizer=tensors.pop("optimizer"),
        average=tensors.pop("average", {}),
        groups=tensors,
        parents=rest.get("parents", {}),
        codec=codec,
        event=event,
    )
