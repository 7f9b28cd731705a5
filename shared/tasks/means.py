"""Means over patients and over sites, of metrics by name."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def over_patients(patients: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each metric over the patients that have it. Nothing for no patients.

    A patient lacks a metric that is not defined there, as of change after one visit; NaN is of a broken model.

    >>> over_patients([{"dice": 0.5, "dice_change": 0.25}, {"dice": 1.0}])
    {'dice': 0.75, 'dice_change': 0.25}
    """
    names = dict.fromkeys(name for patient in patients for name in patient)
    return {name: fmean(patient[name] for patient in patients if name in patient) for name in names}


def over_sites(sites: Sequence[tuple[Mapping[str, float], int]]) -> dict[str, float]:
    """Mean of each metric over (metrics, weight) of sites, by name; a metric enters where it is there and finite.

    >>> over_sites([({"dice": 0.5}, 1), ({"dice": 0.9}, 3), ({"dice": float("nan")}, 9)])
    {'dice': 0.8}
    """
    means = {}
    for name in sorted({name for metrics, _ in sites for name in metrics}):
        known = [(metrics[name], n) for metrics, n in sites if n > 0 and math.isfinite(metrics.get(name, math.nan))]
        if known:
            means[name] = sum(value * n for value, n in known) / sum(n for _, n in known)
    return means


def weighted_means(patients: Sequence[Mapping[str, float]], sites: Sequence[str], weights: Floats) -> dict[str, Floats]:
    """Mean of each metric over patients who count `weights` (R, N) times, a value a row (R,); NaN where nobody counts.

    With ones this is `over_sites` of each site's `over_patients`. A site with a value that is not finite is left out. A
    site's mean of a metric that some of its patients lack counts for all of them, as in `over_sites`.

    >>> patients = [{"dice": 0.5}, {"dice": 0.9}, {"dice": float("nan")}]
    >>> weighted_means(patients, ["a", "a", "b"], np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 0.0]]))
    {'dice': array([0.7, 0.6])}
    """
    means = {}
    for name in dict.fromkeys(name for patient in patients for name in patient):
        has = np.array([name in patient for patient in patients])
        values = np.array([patient.get(name, 0.0) for patient in patients])
        enters = of_finite_sites(values, sites)
        if (has | ~enters).all():
            means[name] = ratio(weights[:, enters] @ values[enters], weights[:, enters].sum(axis=1))
            continue
        total, whole = np.zeros(len(weights)), np.zeros(len(weights))
        for site in sorted({site for site, there in zip(sites, enters, strict=True) if there}):
            here = np.array([each == site for each in sites])
            mean = ratio(weights[:, here & has] @ values[here & has], weights[:, here & has].sum(axis=1))
            counts = np.where(np.isnan(mean), 0.0, weights[:, here].sum(axis=1))
            total, whole = total + counts * np.nan_to_num(mean), whole + counts
        means[name] = ratio(total, whole)
    return means


def of_finite_sites(values: Floats, sites: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which patients (N,) are of a site all of whose values are finite."""
    broken = {site for site, value in zip(sites, values, strict=True) if not math.isfinite(value)}
    return np.array([site not in broken for site in sites], dtype=bool)


def ratio(part: Floats, whole: Floats) -> Floats:
    """NaN for none of nothing."""
    divided: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return divided


Range = tuple[float, float]
LOSS: Range = (0.0, 1e4)
"""Of cross-entropy, which a model that diverges makes hundreds; what is not finite enters no mean."""


def out_of_range(metrics: Mapping[str, float], ranges: Mapping[str, Range]) -> str | None:
    """Say which metric cannot be what it is, if one cannot; what is not finite enters no mean, and may be.

    >>> out_of_range({"dice": 1e9}, {"dice": (0.0, 1.0)})
    'dice=1e+09, not 0 to 1'
    """
    for name, value in metrics.items():
        if name not in ranges:
            return f"{name}: no metric of this task"
        low, high = ranges[name]
        if math.isfinite(value) and not low <= value <= high:
            return f"{name}={value:g}, not {low:g} to {high:g}"
    return None


def as_json(metrics: Mapping[str, float]) -> dict[str, float | None] | None:
    """Metrics as JSON can hold them: null for NaN, and for all of them where they were withheld."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()} or None
