"""Methods of federated optimisation: what each asks of the sites, beside the loop that all share."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.fedprox import FedProx
from gliofed.shared.parse import Strict, key_of

ALGORITHMS: dict[str, FedAvg] = {
    "fedavg": FedAvg(),
    "fedprox": FedProx(),
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
