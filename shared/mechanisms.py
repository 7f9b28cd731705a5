"""Mechanisms of differential privacy: where noise is added, what it hides, and their settings."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from gliofed.shared.parse import Seed, Strict, key_of


@dataclass(frozen=True)
class Mechanism:
    """One way to make a run private."""

    noise: Literal["site", "server"] | None
    """Where it is added: before an update leaves the site, whose ledger keeps the budget; or to the sum of all."""
    unit: Literal["patient", "site"] | None
    """What it hides: one patient with all visits, or all that a site has."""


MECHANISMS = {
    "none": Mechanism(noise=None, unit=None),
    "dp_sgd": Mechanism(noise="site", unit="patient"),
    "local_update": Mechanism(noise="site", unit="site"),
    "central": Mechanism(noise="server", unit="site"),
}
"""Every mechanism by the name that privacy= takes; what each does is in `PrivacyConfig`."""


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig(Strict):
    """Differential privacy: how little may be told from what a site sends, or from the model."""

    mechanism: Annotated[str, key_of(MECHANISMS)] = "none"
    """dp_sgd: every local step is private, for each patient with all visits and patches (Abadi et al. 2016,
    arXiv:1607.00133), and one of plain SGD; the settings below replace train.batch, lr, clip and weight_decay.
    local_update: a site trains as ever, clips its whole update and adds noise before it leaves. central: the server
    clips the updates and adds noise to their sum (McMahan et al. 2018, arXiv:1710.06963); what a site sends is not
    private. The unit of these two is a site: whatever its patients are, with others the noise hides the difference."""
    epsilon: Annotated[float, Field(ge=1e-3, le=1000)] = 8.0
    """Budget of each unit over all rounds of the run: the noise follows from it."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """None: 1 / (10 N), for N patients of a site that tells exact numbers; 0.0001 where it does not, since delta shows
    in the noise; of central, for N sites of round.expected."""
    clip: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    """Largest L2 norm of one patient's gradient, which falls to about that before a U-Net finds its first voxel; of
    local_update and central, of a site's update."""
    batch: Annotated[float, Field(ge=1e-3, le=1e6)] = 8.0
    """Patients in a step, on average; each is drawn by itself (Poisson sampling). This and the next four: of dp_sgd."""
    patches: Annotated[int, Field(gt=0, le=256)] = 2
    """Samples of each drawn patient; their mean loss is the patient's. A single one is slow on a CPU."""
    lr: Annotated[float, Field(gt=0, le=1e6)] = 2.0
    """SGD's learning rate; what counts is its product with the clip."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """SGD's momentum; it starts anew every round."""
    schedule: Literal["constant", "linear"] = "constant"
    """linear: the learning rate falls round by round, from lr in the first to lr / rounds in the last."""
    test_seed: Seed | None = None
    """Makes noise and sampling repeatable, for tests: such a run is not private, and says so. None: the operating
    system's randomness, which is not written down."""


NOT_PRIVATE = PrivacyConfig()
