"""Canaries: a lower bound of epsilon from one run, which measures what the private step gives away.

Each of many canaries is a made-up patient with a weight of its own, so that its gradient stands alone. A coin says
whether it is in the cohort. Who sees every noisy gradient guesses the coins of those that look clearest; too many
right guesses prove a larger epsilon than was claimed.
Source: Steinke, Nasr, Jagielski 2023, arXiv:2305.08846, algorithm 1 and appendix D; gradients with one entry: Nasr et
al. 2023, arXiv:2302.07956.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from scipy.stats import binom
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gliofed.client.round.privacy import Plan, train_privately
from gliofed.server.report.plots.style import COLOURS, new_figure, save_figure
from gliofed.shared.accounting import rdp_epsilon
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.samples import Batch
from gliofed.shared.mechanisms import MECHANISMS, PrivacyConfig
from gliofed.shared.parse import ConfigError
from gliofed.shared.seeding import seed_of
from gliofed.shared.wording import quantity
from gliofed.simulation.attacks.settings import AttackConfig, Row
from gliofed.simulation.attacks.target import Target, plan_of

CONFIDENCE = 0.95
GUESSED = 0.3
"""Share of the canaries whose coin is guessed: half of it the highest scores, half the lowest."""
DELTA = 1e-5
"""Largest delta of the test. It must be small against one in so many canaries, or no number of guesses proves much; a
run's own, 1 / (10 N), is not."""
FRAMES = 5
"""Rows of a canary's series: clipping must be by patient, not by row."""
LOUD = 1e3
"""Norm of a canary's gradient before it is clipped."""
UNCLIPPED = 1e9


@dataclass(frozen=True)
class Audit:
    """What was seen of the canaries."""

    scores: npt.NDArray[np.float64]
    """Sum of every noisy gradient at the canary's weight, in clips: about how many steps it was drawn in."""
    inside: npt.NDArray[np.bool_]
    """Their coins."""

    @property
    def guesses(self) -> int:
        """How many coins are guessed."""
        return 2 * round(GUESSED * len(self.scores) / 2)

    @property
    def right(self) -> int:
        """How many of the guesses are right: the highest scores were in, the lowest were not."""
        order, half = np.argsort(self.scores), self.guesses // 2
        return int(self.inside[order[-half:]].sum() + (~self.inside[order[:half]]).sum())


def canaries(targets: Sequence[Target], settings: AttackConfig, out: Path) -> list[Row]:
    """Audit the steps of each run's first site; a row and a histogram each.

    Raises ConfigError for a mechanism that does not protect patients, one by one.
    """
    for target in targets:
        if MECHANISMS[mechanism := target.run.privacy.mechanism].unit == "site":
            raise ConfigError(
                f"run={target.folder}: has privacy={mechanism}; attack=canaries audits privacy=dp_sgd and runs "
                "without privacy"
            )
    rows: list[Row] = []
    audits: dict[str, Audit] = {}
    for target in targets:
        run, plan, delta = whole_plan(target)
        with Console(stderr=True).status(f"{target.label}: {quantity(settings.canaries, 'canary', 'canaries')}"):
            found = audits[target.label] = audit(run, plan, settings.canaries, settings.seed)
        rows.append({"run": target.label, **_figures(found, plan, delta)})
    draw_scores(audits, out / "canaries.png")
    return rows


def whole_plan(target: Target) -> tuple[RunConfig, Plan, float]:
    """All steps of all rounds of the run's first site, and delta; without privacy with no noise and no clipping."""
    run, (plan, delta) = target.run, plan_of(target)
    if not run.private:
        run, plan = replace(run, privacy=PrivacyConfig(clip=UNCLIPPED)), replace(plan, sigma=0.0, lr=1.0)
    return run, replace(plan, steps=target.run.rounds * plan.steps), delta


def _figures(found: Audit, plan: Plan, own: float) -> Row:
    """Epsilon claimed at the run's `own` delta and at the test's, with which the proven one must be compared."""
    delta = min(own, DELTA)
    private = plan.sigma > 0
    spent = [(plan.sigma, plan.rate, plan.steps)]
    return {
        "claimed_epsilon": rdp_epsilon(spent, own) if private else "infinite",
        "delta": own if private else None,
        "claimed_at_test_delta": rdp_epsilon(spent, delta) if private else "infinite",
        "proven_epsilon": proven(found.right, found.guesses, len(found.scores), delta),
        "most_provable": proven(found.guesses, found.guesses, len(found.scores), delta),
        "test_delta": delta,
        "canaries": len(found.scores),
        "guesses": found.guesses,
        "right": found.right,
        "sigma": plan.sigma,
        "rate": plan.rate,
        "steps": plan.steps,
    }


class _Weights(nn.Module):
    """A weight for each canary; a series of frames (B, T) that name a canary, to that weight in each frame."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count))

    def forward(self, series: Tensor) -> Tensor:
        return self.weight[series.long()]


class _Loud:
    """A task whose loss is the mean over patches and frames, so that a frame's gradient is that of the series."""

    @staticmethod
    def loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return LOUD * logits.mean()


def audit(run: RunConfig, plan: Plan, count: int, seed: int = 0) -> Audit:
    """Take the private steps of `plan` over those of `count` canaries whose coin says so, and look at each."""
    inside = np.random.default_rng(seed).random(count) < 0.5
    patients = [Patient(str(canary), (), ()) for canary in np.flatnonzero(inside)]
    model, total = _Weights(count), torch.zeros(count, dtype=torch.float64)

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if optimizer.param_groups[0]["params"][0] is model.weight:
            total.add_(model.weight.grad)

    handle = register_optimizer_step_pre_hook(look)
    try:
        secret = seed_of(seed, "canaries")
        train_privately(model, patients, _series, _Loud, run, plan, torch.device("cpu"), secret)  # type: ignore[arg-type]
    finally:
        handle.remove()
    each = min(run.privacy.clip, LOUD) / run.privacy.batch  # what one canary adds to a step's gradient
    return Audit(total.numpy() / each, inside)


def _series(patient: Patient, _: np.random.Generator) -> Batch:
    return Batch(torch.full((2, FRAMES), float(patient.name)), torch.zeros(2))


def proven(right: int, guesses: int, count: int, delta: float) -> float:
    """The largest epsilon which so many right guesses refute at the confidence: the true one is above it."""
    low, high = 0.0, 20.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        refuted = _chance(right, guesses, count, middle, delta) < 1 - CONFIDENCE
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _chance(right: int, guesses: int, count: int, epsilon: float, delta: float) -> float:
    """Upper bound of the chance of so many right guesses, or more, under (epsilon, delta)-DP."""
    rate = 1 / (1 + np.exp(-epsilon))
    below = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, rate)) / np.arange(1, right + 1)
    return float(min(1.0, binom.sf(right - 1, guesses, rate) + below.max(initial=0.0) * delta * 2 * count))


def draw_scores(audits: dict[str, Audit], path: Path) -> None:
    """Write a PNG with a histogram a run: scores of the canaries in the cohort, and of the others."""
    figure = new_figure(
        "Canaries: how clearly they are seen", "made-up patients", width=8.0, height=1.0 + 2.4 * len(audits)
    )
    for axes, (label, found) in zip(figure.subplots(len(audits), squeeze=False).flat, audits.items(), strict=True):
        bins = np.histogram_bin_edges(found.scores, 40)
        for side, name, colour in ((found.inside, "in", COLOURS[0]), (~found.inside, "not in", COLOURS[1])):
            axes.hist(found.scores[side], bins, alpha=0.6, color=colour, label=name)
        axes.set_title(label, fontsize=10, loc="left")
        axes.set_xlabel("sum of the gradients seen, in clips")
        axes.set_ylabel("canaries")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    save_figure(figure, path)
