from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gliofed.shared.tasks.means import (
    LOSS,
    Floats,
    of_finite_sites,
    out_of_range,
    over_patients,
    over_sites,
    weighted_means,
)
from gliofed.shared.tasks.scores import COUNTS, RATES, auc_with_interval, rates, rates_with_intervals, weighted_auc
from gliofed.shared.tasks.task import Label, Model, Task
from gliofed.shared.wording import quantity

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gliofed.shared.config import DataConfig
    from gliofed.shared.data.samples import Batch


def _answer(logit: Tensor) -> tuple[str, str]:  # no lambda: a check hands the label to other processes
    return "HGG" if logit.item() > 0 else "LGG", f"{logit.sigmoid().item():.4f}"


GRADE = Label(
    column="grade",
    answer=_answer,
    columns=("grade", "probability_hgg"),
    reading="graded",
    classes=("LGG", "HGG"),
    missing="no_grade",
    differs="two_grades",
    source="name_mapping.csv there, columns Grade (HGG or LGG) and BraTS_2020_subject_ID (the case's folder), "
    "separated by commas",
)


class Grading(Task):
    """High-grade glioma (HGG, 1) or low-grade (LGG, 0): one sigmoid a patient.

    Logits and targets are (B, 1). A patient is called HGG where the logit is above 0.
    """

    headline = "accuracy"
    label = GRADE

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Binary cross-entropy of each sample, times its `weight` (B,), and their mean; None is ones."""
        import torch.nn.functional as F

        losses = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none").flatten(1).mean(1)
        return (losses if weight is None else losses * weight).mean()

    def measure(
        self, model: Model, volumes: Iterable[Batch], data: DataConfig, device: torch.device
    ) -> dict[str, float]:
        """Loss, score (the logit) and true grade of one patient, who is the one batch of `volumes`, with B=1.

        The counts, which `summarise` makes of it, and the loss of very few patients tell much about each.
        """
        import torch

        [batch] = volumes
        batch = batch.to(device)
        with torch.no_grad():
            logit = model(*batch.inputs)
            loss = self.loss(logit, batch.target)
        return {"loss": loss.item(), "score": logit.item(), "grade": batch.target.item()}

    def summarise(self, patients: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """One site's metrics from its patients' measures; nothing for no patients.

        The mean loss; the counts tp, fp, tn, fn, where positive is HGG; accuracy, sensitivity, specificity, f1 and auc,
        each with its 95 % bootstrap interval as accuracy_low and accuracy_high. What is undefined is NaN, as the AUC
        where all patients have one grade.
        """
        if not patients:
            return {}
        measured = over_patients([{"loss": patient["loss"]} for patient in patients])
        score = np.array([patient["score"] for patient in patients])
        if not np.isfinite(score).all():  # a broken model grades nobody: no counts, and nothing looks like a result
            return measured | {"accuracy": math.nan, "auc": math.nan}
        hgg = np.array([patient["grade"] for patient in patients]) == 1
        called = score > 0
        counts = [np.sum(called & hgg), np.sum(called & ~hgg), np.sum(~called & ~hgg), np.sum(~called & hgg)]
        rates = rates_with_intervals(np.array(counts, np.float64))
        return measured | rates | auc_with_interval(score, hgg.astype(np.float64))

    def weighted(
        self, patients: Sequence[Mapping[str, float]], sites: Sequence[str], weights: Floats
    ) -> dict[str, Floats]:
        """See the base; the mean loss, rates of the weighted counts, and the AUC of pairs within a site."""
        losses = weighted_means([{"loss": patient["loss"]} for patient in patients], sites, weights)
        score = np.array([patient["score"] for patient in patients])
        enters = of_finite_sites(score, sites)
        score, weights = score[enters], weights[:, enters]
        hgg = np.array([patient["grade"] for patient in patients])[enters] == 1
        called = score > 0
        counts = weights @ np.stack([called & hgg, called & ~hgg, ~called & ~hgg, ~called & hgg], axis=1).astype(float)
        within = [site for site, there in zip(sites, enters, strict=True) if there]
        return losses | rates(counts) | {"auc": weighted_auc(score, hgg.astype(np.float64), within, weights)}

    def impossible(self, metrics: Mapping[str, float], patients: int, data: DataConfig) -> str | None:
        """Say what of one site's metrics over so many validation patients cannot be, if anything."""
        shares = {name + end: (0.0, 1.0) for name in ("auc", *RATES) for end in ("", "_low", "_high")}
        counts = {name: (0.0, float(patients)) for name in COUNTS}
        if found := out_of_range(metrics, {"loss": LOSS} | shares | counts):
            return found
        if set(COUNTS) <= metrics.keys() and not _adds_up(metrics, patients):
            return f"counts that are not of {quantity(patients, 'patient')}"
        return None

    def pool(self, sites: Sequence[tuple[Mapping[str, float], int]], data: DataConfig) -> dict[str, float]:
        """All sites' metrics from each one's own and its number of validation patients.

        Counts are summed, and what follows from counts is exactly as if all patients were at one place, intervals too.
        The AUC is not: it needs scores, which do not leave a site. Here it is the mean of the sites' AUCs, weighted by
        their pairs of an HGG and an LGG, so the share of pairs within a site that are in order; it has no interval.
        A site with a metric that cannot be, or without counts of so many patients, does not enter: others sent it.
        """
        sites = [site for site in sites if self.impossible(*site, data) is None and _adds_up(*site)]
        if not sites:
            return {}
        losses = [({"loss": metrics.get("loss", math.nan)}, patients) for metrics, patients in sites]
        aucs = [({"auc": metrics.get("auc", math.nan)}, _pairs(metrics)) for metrics, _ in sites]
        counts = [sum(metrics[name] for metrics, _ in sites) for name in COUNTS]
        rates = rates_with_intervals(np.array(counts, np.float64))
        return {"loss": math.nan} | over_sites(losses) | rates | {"auc": math.nan} | over_sites(aucs)


def _adds_up(metrics: Mapping[str, float], patients: int) -> bool:
    """Whether these metrics count so many patients, and one or more."""
    counts = [float(metrics.get(name, math.nan)) for name in COUNTS]
    return all(count.is_integer() and count >= 0 for count in counts) and sum(counts) == patients > 0


def _pairs(metrics: Mapping[str, float]) -> int:
    """Pairs of an HGG and an LGG."""
    return int((metrics["tp"] + metrics["fn"]) * (metrics["tn"] + metrics["fp"]))
