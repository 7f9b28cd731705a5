"""Methods of federated optimisation: what each asks of the sites, beside the loop that all share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.fedbn import FedBN
from gliofed.shared.algorithms.fedprox import FedProx
from gliofed.shared.algorithms.groups import Group
from gliofed.shared.algorithms.scaffold import Scaffold
from gliofed.shared.parse import Strict, key_of

if TYPE_CHECKING:
    from gliofed.shared.config import RunConfig

ALGORITHMS: dict[str, FedAvg] = {
    "fedavg": FedAvg(),
    "fedprox": FedProx(),
    "scaffold": Scaffold(),
    "fedbn": FedBN(),
}
"""Every method by the name that a configuration uses. A new one is a file beside this one and an entry here.

No PyTorch is imported here: the methods use what tensors have."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig(Strict):
    """What sites do in a round, beside plain local steps."""

    name: Annotated[str, key_of(ALGORITHMS)] = "fedavg"
    """A key of ALGORITHMS."""
    mu: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    """Of fedprox: weight of its term."""


FEDAVG = AlgorithmConfig()


def sent_of(run: "RunConfig") -> tuple[Group, ...]:
    """The groups that a request to train has beside the weights."""
    return ALGORITHMS[run.algorithm.name].sent


def returned_of(run: "RunConfig") -> tuple[Group, ...]:
    """The groups that a reply has beside the update."""
    return ALGORITHMS[run.algorithm.name].returned


def kept_of(run: "RunConfig") -> tuple[Group, ...]:
    """The groups that a site keeps between rounds."""
    return ALGORITHMS[run.algorithm.name].kept
