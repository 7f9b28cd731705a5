"""Mechanisms of differential privacy: where noise is added, and what it hides."""

from dataclasses import dataclass
from typing import Literal


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
"""Every mechanism by the name that privacy= takes; what each does is in `gliofed.shared.config.PrivacyConfig`."""
