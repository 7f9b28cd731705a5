"""How well two classes are told apart: rates of counts, the AUC, and bootstrap intervals of both."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gliofed.shared.seeding import generator
from gliofed.shared.tasks.means import Floats, ratio

COUNTS = ("tp", "fp", "tn", "fn")
"""Patients by decision; positive is HGG."""
RATES = ("accuracy", "sensitivity", "specificity", "f1")
"""What follows from them."""

RESAMPLES = 1000
"""Of the patients, with replacement; drawn from a fixed seed, so that the same patients have the same interval."""


def rates(counts: Floats) -> dict[str, Floats]:
    """Accuracy, sensitivity, specificity and F1, each (...), of counts (..., 4) as in COUNTS; NaN where undefined."""
    tp, fp, tn, fn = np.moveaxis(counts, -1, 0)
    return {
        "accuracy": ratio(tp + tn, tp + fp + tn + fn),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def rates_with_intervals(counts: Floats) -> dict[str, float]:
    """The counts (4,) of one patient or more and their `rates`, with 95 % intervals as accuracy_low and accuracy_high.

    One patient has no interval: every resample is that patient. Its ends are NaN.
    To draw patients with replacement and count them is to draw the counts, as `resampled` does: no patient is needed.
    """
    found: dict[str, float] = dict(zip(COUNTS, counts.tolist(), strict=True))
    drawn = rates(resampled(counts) if counts.sum() > 1 else np.zeros((1, len(COUNTS))))
    for name, value in rates(counts).items():
        found |= {name: float(value)} | interval(name, drawn[name])
    return found


def resampled(counts: Floats) -> Floats:
    """Counts (RESAMPLES, 4) of as many patients as `counts` (4,) has, drawn from these with replacement."""
    patients = counts.sum()
    return generator("bootstrap", "counts").multinomial(int(patients), counts / patients, RESAMPLES).astype(np.float64)


def auc(scores: Floats, grades: Floats) -> Floats:
    """Area under the ROC curve (...), of scores and grades (0 or 1) of patients, both (..., N).

    It is the share of pairs of both grades in which the HGG has the higher score; equal scores count one half. By ranks
    (Mann and Whitney 1947). NaN where there is one grade only, or a score is NaN.
    """
    from scipy.stats import rankdata  # takes a second; not every message needs it

    positive = grades.sum(axis=-1)
    negative = grades.shape[-1] - positive
    won = (rankdata(scores, axis=-1) * grades).sum(axis=-1) - positive * (positive + 1) / 2
    return ratio(won, positive * negative)


def auc_with_interval(scores: Floats, grades: Floats) -> dict[str, float]:
    """`auc` of one site's patients, both (N,), with its 95 % interval as auc_low and auc_high."""
    chosen = drawn_patients(len(scores))
    return {"auc": float(auc(scores, grades))} | interval("auc", auc(scores[chosen], grades[chosen]))


def drawn_patients(patients: int) -> npt.NDArray[np.int64]:
    """Which patients are in each resample, (RESAMPLES, patients)."""
    return generator("bootstrap", "patients").integers(patients, size=(RESAMPLES, patients))


def weighted_auc(scores: Floats, grades: Floats, sites: Sequence[str], weights: Floats) -> Floats:
    """The AUC (R,) of patients who count `weights` (R, N), over pairs within a site, as `Grading.pool` has it.

    `scores` and `grades` (0 or 1) are (N,). A pair counts as often as the product of its patients' weights.
    """
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for site in sorted(set(sites)):
        here = np.array([each == site for each in sites])
        score, grade, weight = scores[here], grades[here], weights[:, here]
        order = (score[:, None] > score) + 0.5 * (score[:, None] == score)
        won += ((weight @ (order * np.outer(grade, 1 - grade))) * weight).sum(axis=1)
        pairs += (weight @ grade) * (weight @ (1 - grade))
    return ratio(won, pairs)


def interval(name: str, values: Floats) -> dict[str, float]:
    """The middle 95 % of `values` as {name}_low and {name}_high; those that are undefined do not enter.

    Percentile bootstrap; source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    defined = values[np.isfinite(values)]
    low, high = np.percentile(defined, [2.5, 97.5]) if len(defined) else (np.nan, np.nan)
    return {f"{name}_low": float(low), f"{name}_high": float(high)}
