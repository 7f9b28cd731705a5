"""What a hospital keeps to itself: paths, device, policy, the limits of its check. Never sent."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gliofed.shared.algorithms import GROUPS
from gliofed.shared.codecs import CODECS
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.parse import Positive, PositiveFloat, SiteName, Strict, key_of, matching
from gliofed.shared.tasks import TaskName
from gliofed.shared.work_folder import WorkFolder

_TIME = r"([01]\d|2[0-3]):[0-5]\d"
Hours = Annotated[str, matching(f"{_TIME}-{_TIME}", "must be two times of day, as 20:00-06:00")]


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Strict):
    """What a hospital accepts; None accepts anything."""

    min_patients: Positive = 1
    """Fewer training patients than this: the site does not train."""
    complete: bool = False
    """Whether a case must have every modality that a run reads, also where the run would take it with some missing."""
    models: tuple[str, ...] | None = None
    """Names of allowed models."""
    tasks: tuple[TaskName, ...] | None = None
    """Allowed tasks."""
    codecs: tuple[Annotated[str, key_of(CODECS)], ...] | None = None
    """Allowed ways in which an update travels."""
    mechanisms: tuple[Annotated[str, key_of(MECHANISMS)], ...] | None = None
    """Allowed mechanisms of privacy; [dp_sgd] keeps every other run out."""
    groups: tuple[Annotated[str, key_of(GROUPS)], ...] | None = None
    """Allowed groups of tensors beside the update; [] keeps out every run that asks for one."""
    min_noise: PositiveFloat | None = None
    """Least noise multiplier of a private run. One without privacy, or with central, has none here: see mechanisms."""
    max_rounds_a_day: Positive | None = None
    """Most rounds that the site trains in 24 hours, of all runs together. A stored reply that is sent again is none."""
    hours: Hours | None = None
    """When a request may arrive, such as 20:00-06:00, by the site's own clock; the second is no longer in. What was
    begun in time is finished."""
    max_readings: Positive = 3
    """Most different readings of the data (task, modalities, regions, window, split, spacing, the block of grading) in
    a study, which is a work folder: each fills a cache of its own, and tells something of the patients, also where the
    answer is that they cannot be used."""
    max_steps: Positive | None = None
    """Most local steps a round."""
    max_parameters: Positive | None = None
    """Largest model. Weights have 4 bytes for each parameter; training holds six times that: gradient, AdamW's two
    moments, the weights as they came, and the update."""
    max_step_voxels: Positive | None = None
    """Most voxels of a step: samples x visits x refinements x patch, see `gliofed.shared.sizes.step_voxels`."""
    max_scan_voxels: Positive = 64_000_000
    """Most voxels of a scan as data.spacing makes it; a cube of 240 mm has as many at 0.6 mm. Each modality and visit
    has so many, in memory and in the cache. Scans that keep their own grid are the hospital's choice."""
    max_minutes: PositiveFloat = 240.0
    """Longest that one request may take across hospitals, also where the run's round.deadline is longer; then it is
    ended, and answered with a code."""
    metrics: Literal["always", "unless_private", "never"] = "unless_private"
    """Whether losses and Dice may leave, with the number of validation patients. No epsilon covers them."""
    counts: Literal["always", "unless_private"] = "unless_private"
    """Whether exact numbers of training patients, and of cases that were left out, may leave. Else a
    private run gets a noisy number, which is charged to the budget."""
    count_noise: PositiveFloat = 10.0
    """Deviation of that noise, patients. It is drawn once for a cohort and a reading of the data."""
    min_validation: Positive = 1
    """Metrics over fewer validation patients than this stay: those of one patient are that patient's."""
    max_epsilon: PositiveFloat | None = None
    """Ceiling of each patient's epsilon, over all runs of the study: a round that would pass it is declined, and so is
    a run whose updates are not private. None: no ceiling."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of that epsilon, fixed when the ledger is opened; None: 0.0001, or 1 / (10 N) where exact numbers may leave."""
    test_mode: bool = False
    """Whether a run with privacy.test_seed, which is not private, may train here."""

    def __post_init__(self) -> None:
        if self.hours is not None and self.hours[:5] == self.hours[6:]:
            raise ValueError(f"policy.hours={self.hours}: begins when it ends; null allows every hour")


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


Device = Annotated[str, matching(r"auto|cpu|cuda(:(0|[1-9]\d?))?", "must be auto, cpu, cuda or cuda:N, as cuda:0")]

Workers = Annotated[int, Field(ge=0, le=256)]


@dataclass(frozen=True, kw_only=True)
class SiteConfig(Strict):
    """What a hospital keeps to itself; never sent."""

    name: SiteName
    root: str
    """Folder of the scans."""
    labels: str
    """Label scheme of the masks: a key of `gliofed.shared.data.labels.LABELS`."""
    patients: tuple[str, ...] | None = None
    """The cohort; None: every patient under root."""
    work: str
    """Folder for the cache, stored replies and the site's log."""
    device: Device = "auto"
    threads: Annotated[int, Field(gt=0, le=1024)] = 1
    """Threads of PyTorch on a CPU."""
    workers: Workers | None = None
    """Threads that draw training samples ahead; None: 0 on a CPU, a few on a GPU. Weights do not depend on it."""
    policy: PolicyConfig = PolicyConfig()
    check: CheckConfig = CheckConfig()

    @property
    def folder(self) -> WorkFolder:
        """The files in `work`."""
        return WorkFolder(Path(self.work))
