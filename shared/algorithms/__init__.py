"""Methods of federated optimisation: what each asks of the sites, beside the loop that all share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.fedbn import FedBN
from gliofed.shared.algorithms.fednova import FedNova
from gliofed.shared.algorithms.fedprox import FedProx
from gliofed.shared.algorithms.groups import Group, Groups
from gliofed.shared.algorithms.moments import moments_of, possible
from gliofed.shared.algorithms.optimizers import OPTIMIZERS
from gliofed.shared.algorithms.scaffold import Scaffold
from gliofed.shared.parse import Strict, key_of

if TYPE_CHECKING:
    from gliofed.shared.config import RunConfig

ALGORITHMS: dict[str, FedAvg] = {
    "fedavg": FedAvg(),
    "fedprox": FedProx(),
    "scaffold": Scaffold(),
    "fedbn": FedBN(),
    "fednova": FedNova(),
}
"""Every method by the name that a configuration uses. A new one is a file beside this one and an entry here.

No PyTorch is imported here: the methods use what tensors have."""


GROUPS = {
    group.name: group
    for group in (
        *(group for method in ALGORITHMS.values() for group in method.returned),
        *(moment for optimizer in OPTIMIZERS.values() for moment in optimizer.moments),
    )
}
"""Every group that a site may be asked for beside its update, by name."""
MOMENTS = frozenset(moment.name for optimizer in OPTIMIZERS.values() for moment in optimizer.moments)
"""Those of them that are an optimiser's."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig(Strict):
    """What sites do in a round, beside plain local steps."""

    name: Annotated[str, key_of(ALGORITHMS)] = "fedavg"
    """A key of ALGORITHMS."""
    mu: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    """Of fedprox: weight of its term."""
    control: Literal["mean", "sum"] = "mean"
    """Of scaffold: what the server's control variate is of the sites' own."""


FEDAVG = AlgorithmConfig()


def sent_of(run: "RunConfig") -> tuple[Group, ...]:
    """The groups that a request to train has beside the weights."""
    return (*ALGORITHMS[run.algorithm.name].sent, *_averaged(run))


def returned_of(run: "RunConfig") -> tuple[Group, ...]:
    """The groups that a reply has beside the update."""
    return (*ALGORITHMS[run.algorithm.name].returned, *_averaged(run))


def kept_of(run: "RunConfig") -> tuple[Group, ...]:
    """The groups that a site keeps between rounds."""
    moments = moments_of(run.optimizer) if run.optimizer.moments == "kept" else ()
    return (*ALGORITHMS[run.algorithm.name].kept, *moments)


def next_groups(run: "RunConfig", groups: Groups, folded: Groups, part: float) -> Groups:
    """The groups that are sent next: the method's, and the means of the moments, where they are averaged."""
    means = possible({group.name: folded[group.name] for group in _averaged(run)})
    return ALGORITHMS[run.algorithm.name].step(groups, folded, part) | means


def _averaged(run: "RunConfig") -> tuple[Group, ...]:
    return moments_of(run.optimizer) if run.optimizer.moments == "averaged" else ()
