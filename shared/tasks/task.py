"""What every task is. PyTorch is imported where it computes: configs, check and status know the tasks without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, ClassVar

from gliofed.shared.tasks.means import Floats, over_patients, over_sites, weighted_means

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gliofed.shared.config import DataConfig
    from gliofed.shared.data.samples import Batch

Model = Callable[..., "Tensor"]


@dataclass(frozen=True)
class Label:
    """One value a patient, which a task learns from the central block of a scan (`data.patch`), without masks.

    Modalities may be missing, and a block is mirrored in training: the value has no side.
    """

    column: str
    """Of `cases.csv`; every visit of a patient that has a value has the same."""
    answer: Callable[[Tensor], tuple[str, ...]]
    """What predict writes of one patient's logit, in `columns`; the first is shown."""
    columns: tuple[str, ...]
    reading: str
    """Name of this reading of the data in logs and in the ledger."""
    classes: tuple[str, ...] = ()
    """Values, of which each stands for its place here; none: a value is a number."""
    missing: str = "no_label"
    """Code of a visit without a value."""
    differs: str = "two_labels"
    """Code of a patient with two."""
    source: str = ""
    """Where values come from beside `cases.csv`."""

    @property
    def table(self) -> str:
        """The file that predict writes."""
        return f"{self.column}s.csv"

    def number(self, value: str) -> float:
        """What a model learns for a value; NaN for one that is none."""
        try:
            return float(self.classes.index(value) if self.classes else value)
        except ValueError:
            return nan


class Task:
    """What is learned of a patient, and how that is measured."""

    headline: ClassVar[str]
    """The metric to show first."""
    lower_is_better: ClassVar[bool] = False
    """Of that metric."""
    label: ClassVar[Label | None] = None
    """What a patient is labelled with; None: masks are learned, from patches."""

    def outputs(self, data: DataConfig) -> int:
        """Channels of the model's output."""
        return 1

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean over the samples of each one's loss times its `weight` (B,); None is ones.

        Samples do not mix: the loss of one patient must not depend on another's (differential privacy).
        """
        raise NotImplementedError

    def logits(self, model: Model, inputs: tuple[Tensor, ...], data: DataConfig) -> Tensor:
        """Output for whole volumes, `Batch.inputs`, of any size; the model is in evaluation mode."""
        return model(*inputs)

    def measure(
        self, model: Model, volumes: Iterable[Batch], data: DataConfig, device: torch.device
    ) -> dict[str, float]:
        """Loss, and what `summarise` needs, of one patient, whose whole volumes are batches of one.

        The model must be in evaluation mode, on `device`. Nothing of it leaves a site but what `summarise` returns.
        """
        raise NotImplementedError

    def summarise(self, patients: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """One site's metrics from its patients' measures: their means; nothing for no patients."""
        return over_patients(patients)

    def weighted(
        self, patients: Sequence[Mapping[str, float]], sites: Sequence[str], weights: Floats
    ) -> dict[str, Floats]:
        """Metrics over patients (N) of several `sites`, from their measures, a value a row of `weights` (R, N).

        A row says how often each patient counts. Ones give what `pool` gives of the sites' `summarise`, but for its
        intervals; so a bootstrap is one call, whose rows are resamples.
        """
        return weighted_means(patients, sites, weights)

    def impossible(self, metrics: Mapping[str, float], patients: int, data: DataConfig) -> str | None:
        """Say what of one site's metrics over so many validation patients cannot be, if anything."""
        raise NotImplementedError

    def pool(self, sites: Sequence[tuple[Mapping[str, float], int]], data: DataConfig) -> dict[str, float]:
        """All sites' metrics, from (metrics, validation patients): the mean over patients; what is finite enters.

        A site with a metric that cannot be does not enter: others sent it.
        """
        return over_sites([site for site in sites if self.impossible(*site, data) is None])
