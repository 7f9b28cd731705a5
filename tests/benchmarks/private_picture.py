"""The picture of docs/results.md: Dice and AUC with and without differential privacy."""

from collections.abc import Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.private_results import MAIN, Scores, Setting, Study

PRIVATE, WITHOUT = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito 2008, safe for the colour-blind; markers differ too."""
NAMES = {"dice": "Dice", "auc": "AUC"}


def draw(study: Study, scores: Scores) -> Figure:
    """The study's metric by epsilon, sites and patients; a dot a seed, a line through the means."""
    mpl.use("Agg")
    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    varied = [axis for axis in ("sites", "patients") if len({getattr(s, axis) for s in study.settings}) > 1]
    axes = figure.subplots(1, 1 + len(varied), sharey=True, width_ratios=(1.5, *[1] * len(varied)))
    _by_epsilon(axes[0], study, scores)
    axes[0].set_ylabel(NAMES[study.metric])
    axes[0].legend(fontsize=8, loc="lower right")
    for ax, axis in zip(axes[1:], varied, strict=True):
        _by(ax, study, scores, axis)
    for ax in axes:
        ax.grid(axis="y", linewidth=0.4)
        if study.chance:
            ax.axhline(study.chance, color="#555555", linewidth=1, linestyle=":")
    figure.suptitle("Synthetic phantoms, with and without differential privacy: each seed, and the mean", fontsize=11)
    return figure


def _by_epsilon(ax: Axes, study: Study, scores: Scores) -> None:
    """Epsilons at even distances, and none at the right."""
    epsilons = sorted({s.epsilon for s in study.settings if s.epsilon is not None})
    private = [(place, Setting(epsilon)) for place, epsilon in enumerate(epsilons)]
    without = [setting for setting in (Setting(), Setting(longer=True)) if setting in study.settings]
    _line(ax, private, scores, PRIVATE, "o", "private")
    for place, setting in enumerate(without, start=len(epsilons)):
        _line(ax, [(place, setting)], scores, WITHOUT, "s", None if setting.longer else "without privacy")
    names = [f"{epsilon:g}" for epsilon in epsilons] + ["none", "none, longer"][: len(without)]
    ax.set_xticks(range(len(names)), names)
    ax.set_xlabel(f"epsilon ({MAIN.sites} sites of {MAIN.patients} patients)")


def _by(ax: Axes, study: Study, scores: Scores, axis: str) -> None:
    """Without privacy and at epsilon 8, over sites or over patients."""
    other = {"sites": "patients", "patients": "sites"}[axis]
    same = [s for s in study.settings if getattr(s, other) == getattr(MAIN, other) and not s.longer]
    values = sorted({getattr(s, axis) for s in same})
    for epsilon, colour, marker in ((MAIN.epsilon, PRIVATE, "o"), (None, WITHOUT, "s")):
        points = [(getattr(s, axis), s) for s in same if s.epsilon == epsilon]
        _line(ax, sorted(points, key=lambda point: point[0]), scores, colour, marker, None)
    ax.set_xscale("log", base=2)
    ax.set_xticks(values, [str(value) for value in values])
    fixed = f"of {MAIN.patients} patients" if axis == "sites" else f"at each of {MAIN.sites} sites"
    ax.set_xlabel(f"{axis} {fixed} (epsilon {MAIN.budget})")


def _line(
    ax: Axes, points: Sequence[tuple[float, Setting]], scores: Scores, colour: str, marker: str, label: str | None
) -> None:
    """A line through the means of the rows that are there, and each seed as a faint dot."""
    known = [(place, list(scores[s.name].values())) for place, s in points if scores.get(s.name)]
    places, means = [place for place, _ in known], [fmean(values) for _, values in known]
    ax.plot(places, means, color=colour, marker=marker, linewidth=1.4, label=label)
    for place, values in known:
        ax.scatter([place] * len(values), values, s=16, color=colour, alpha=0.5, linewidths=0, zorder=3)
