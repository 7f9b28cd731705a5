"""What a hospital keeps to itself: paths, device, policy, the limits of its check. Never sent."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from shared.config import Positive, PositiveFloat, SiteName, Strict


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Strict):
    """What a hospital accepts; None accepts anything."""

    min_patients: Positive = 1
    """Fewer training patients than this: the site does not train."""
    models: tuple[str, ...] | None = None
    """Names of allowed models."""
    max_steps: Positive | None = None
    """Most local steps a round."""
    metrics: bool = True
    """Whether losses and Dice may leave."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Strict):
    """What a hospital's scans must be."""

    spacing: tuple[PositiveFloat, PositiveFloat] = (0.2, 10.0)
    """Shortest and longest voxel edge, mm; another is the error `spacing`."""
    size: tuple[Positive, Positive] = (8, 1024)
    """Fewest and most voxels along an axis; another number is the error `size`, and the voxels are not looked at."""
    thick_slice: PositiveFloat = 4.0
    """Slices above this, mm, get a warning, where they are twice as thick as the shortest edge or more."""
    tiny_tumour: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    """A whole tumour below this, cm3, gets a warning: a stroke of the pen may have stayed in the mask."""
    huge_tumour: PositiveFloat = 400.0
    """A whole tumour above this, cm3, gets a warning: a third of a brain."""
    outlier: PositiveFloat = 6.0
    """A case so many robust standard deviations from the cohort gets a warning."""

    def __post_init__(self) -> None:
        for key, (low, high) in (("spacing", self.spacing), ("size", self.size)):
            if low > high:
                raise ValueError(f"check.{key}={low},{high}: the first must not be above the second")


Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")]


@dataclass(frozen=True, kw_only=True)
class SiteConfig(Strict):
    """What a hospital keeps to itself; never sent."""

    name: SiteName
    root: str
    """Folder of the scans."""
    labels: str
    """Label scheme of the masks: a key of `shared.data.labels.LABELS`."""
    patients: tuple[str, ...] | None = None
    """The cohort; None: every patient under root."""
    work: str
    """Folder for the cache, stored replies and the site's log."""
    device: Device = "auto"
    threads: Positive = 1
    """Threads of PyTorch on a CPU."""
    policy: PolicyConfig = PolicyConfig()
    check: CheckConfig = CheckConfig()
