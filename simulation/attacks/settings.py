"""What a user may say of an attack, and what an attack gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from gliofed.shared.parse import Positive, Seed, Strict
from gliofed.shared.site_config import Device

Row = Mapping[str, str | float | None]
"""One line of the result, by the name of the figure; None where a figure cannot be had from so few patients.

`auc` with `auc_low` and `auc_high` beside it is shown as one column with its interval."""


@dataclass(frozen=True, kw_only=True)
class AttackConfig(Strict):
    """Settings of the attacks; each reads what it needs."""

    shadows: Annotated[int, Field(ge=0, le=1024)] = 8
    """Shadow models of membership; 0 leaves them out, and only the loss threshold is tried."""
    canaries: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Made-up patients of the audit."""
    steps: Positive = 300
    """Of each search of inversion."""
    seed: Seed = 0
    """Of who is in which shadow model, of their training, of the canaries, and of the patch that is inverted."""
    device: Device = "auto"
    threads: Positive = 1
    """Of PyTorch on a CPU."""

    def __post_init__(self) -> None:
        if self.shadows % 2 or self.shadows == 2:
            raise ValueError(
                f"attacks.shadows={self.shadows}: must be even and 4 or more, since each patient is in half of them "
                "and their scores must vary; or 0"
            )
