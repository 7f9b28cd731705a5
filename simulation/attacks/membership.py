"""Membership inference: was this patient trained on? By the model's loss, and by LiRA with shadow models.

Members are the run's training patients, non-members its validation patients: a hash of the id parted them, so nothing
but the training tells them apart (where a data set declares its own split, that may).
Sources: loss threshold, Yeom et al. 2018, arXiv:1709.01604; LiRA (online, a Gaussian a patient), Carlini et al. 2022,
arXiv:2112.03570.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gliofed.client.round.training import pick_device
from gliofed.server.report.plots.style import COLOURS, GREY, frame, new_figure, save_figure
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.samples import whole
from gliofed.shared.parse import ConfigError
from gliofed.shared.tasks import TASKS, reading_of
from gliofed.shared.tasks.scores import auc_with_interval
from gliofed.shared.wording import quantity
from gliofed.simulation.attacks.settings import AttackConfig, Row
from gliofed.simulation.attacks.shadows import train_shadows
from gliofed.simulation.attacks.target import Target
from gliofed.simulation.simulate import FailedError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
LOSS, LIRA = "loss threshold", "LiRA"
RATES = {"tpr_at_fpr_0.01": 0.01, "tpr_at_fpr_0.1": 0.1}
ENOUGH = 50
"""Non-members from which on small rates of false positives can be seen."""
LEAST_VARIANCE = 1e-8
"""Of scores, which are of the order of 1: shadow models that agree to the last bit must not divide by zero."""


def membership(targets: Sequence[Target], settings: AttackConfig, out: Path) -> list[Row]:
    """Try both attacks on each run; a row each, and one picture of all.

    Raises ConfigError for a run with fewer than two members or two non-members, before anything is trained.
    """
    for target in targets:
        members = [inside for _, inside in target.patients]
        if min(sum(members), len(members) - sum(members)) < 2:
            validating = quantity(len(members) - sum(members), "validation patient")
            raise ConfigError(
                f"run={target.folder}: {sum(members)} training and {validating}; "
                "membership needs two of both: more data.patients, or a larger data.validation"
            )
    rows: list[Row] = []
    curves: dict[tuple[str, str], tuple[Floats, Floats]] = {}
    for target in targets:
        inside = np.array([inside for _, inside in target.patients])
        for attack, scores in _scores(target, settings, out).items():
            curves[target.label, attack] = roc(scores, inside)
            rows.append({"run": target.label, "attack": attack, **figures(scores, inside)})
    notes = sorted({target.note for target in targets})
    draw_roc(curves, out / "membership.png", notes[0] if len(notes) == 1 else "")
    return rows


def _scores(target: Target, settings: AttackConfig, out: Path) -> dict[str, Floats]:
    """Each attack's scores of `target.patients`: a member's should be higher."""
    device = pick_device(settings.device)
    seen = losses(target, device)
    scores = {LOSS: -seen}
    if settings.shadows:
        shadows = list(train_shadows(target, settings, out))
        others = np.array([confidence(losses(shadow.model, device)) for shadow in shadows])
        inside = np.array([shadow.inside for shadow in shadows])
        scores[f"{LIRA}, {quantity(settings.shadows, 'shadow')}"] = lira(confidence(seen), others, inside)
    return scores


def losses(target: Target, device: torch.device) -> Floats:
    """The final model's loss on each of `target.patients`, whole scans as in evaluation."""
    model = target.model().to(device)
    found = np.array([patient_loss(model, patient, target.run, device) for patient, _ in target.patients])
    if not np.isfinite(found).all():
        raise FailedError(f"run={target.folder}: a model's loss is not finite, so nothing can be told from it")
    return found


@torch.no_grad()
def patient_loss(model: nn.Module, patient: Patient, run: RunConfig, device: torch.device) -> float:
    """The task's loss of training on whole scans, without the distances of `measure`, which take far longer."""
    task, parts, visits = TASKS[run.task], [], []
    for batch in whole(patient, run.data, reading_of(run)):
        there = batch.to(device)
        parts.append(task.loss(task.logits(model, there.inputs, run.data), there.target).item())
        visits.append(batch.image.shape[:-4].numel())  # a window's loss counts once for each of its visits
    return float(np.average(parts, weights=visits))


def confidence(loss: Floats) -> Floats:
    """Logit of exp(-loss): for grading log(p / (1 - p)) of the true grade, and the same of a segmentation's loss.

    A loss is skewed; LiRA's Gaussians fit this better.

    >>> confidence(np.array([np.log(2)])).tolist()  # p = 1/2
    [0.0]
    """
    loss = np.maximum(loss, 1e-12)
    scores: Floats = -loss - np.log(-np.expm1(-loss))
    return scores


def lira(observed: Floats, shadows: Floats, inside: Bools) -> Floats:
    """Log likelihood ratio, member to non-member, of each patient's observed score (N,).

    `shadows` are the scores (K, N) under K shadow models, `inside` (K, N) says which were trained on the patient. Means
    are each patient's own; the variances of both sides are pooled over patients, as is advised for few shadow models.
    """
    member, other = (_log_normal(observed, shadows, side) for side in (inside, ~inside))
    return member - other


def _log_normal(observed: Floats, shadows: Floats, side: Bools) -> Floats:
    """Log density, up to a constant, of the scores under the Gaussians of one side."""
    count = side.sum(axis=0)
    mean = (shadows * side).sum(axis=0) / count
    square = (((shadows - mean) * side) ** 2).sum()
    variance = max(square / (count - 1).sum(), LEAST_VARIANCE)
    density: Floats = -((observed - mean) ** 2) / (2 * variance) - np.log(variance) / 2
    return density


def figures(scores: Floats, inside: Bools) -> dict[str, float | None]:
    """AUC with its 95 % bootstrap interval, and the rates of true positives at small rates of false ones.

    None where one non-member is already more than that rate.
    """
    members, others = int(inside.sum()), int((~inside).sum())
    fpr, tpr = roc(scores, inside)
    found: dict[str, float | None] = {"members": members, "non_members": others}
    found |= auc_with_interval(scores, inside.astype(np.float64))
    return found | {
        name: float(tpr[fpr <= rate].max()) if others * rate >= 1 - 1e-9 else None for name, rate in RATES.items()
    }


def roc(scores: Floats, inside: Bools) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); equal scores go together."""
    thresholds = np.unique(scores)[::-1]
    called = scores >= np.concatenate([[np.inf], thresholds])[:, None]
    return called[:, ~inside].mean(axis=1), called[:, inside].mean(axis=1)


def draw_roc(curves: Mapping[tuple[str, str], tuple[Floats, Floats]], path: Path, note: str) -> None:
    """Write a PNG of all ROC curves: a colour a run, LiRA solid and the loss threshold dashed.

    On logarithmic axes where there are non-members enough for small rates.
    """
    smallest = min(fpr[fpr > 0].min() for fpr, _ in curves.values())
    figure = new_figure("Membership: which patients were trained on", note, width=8.0, height=5.4)
    axes = figure.subplots()
    runs = list(dict.fromkeys(run for run, _ in curves))
    # A curve starts at the first rate that is not zero, which a logarithmic axis does not have.
    least = smallest / 2 if smallest <= 1 / ENOUGH else 0.0
    for (run, attack), (fpr, tpr) in curves.items():
        colour, dash = COLOURS[runs.index(run) % len(COLOURS)], "--" if attack == LOSS else "-"
        fpr, tpr = np.maximum(fpr, least), np.maximum(tpr, least)
        axes.plot(fpr, tpr, dash, color=colour, drawstyle="steps-post", label=f"{run}: {attack}")
    axes.plot([least, 1], [least, 1], ":", color=GREY, label="guessing")
    scale = "log" if least else "linear"
    axes.set(xscale=scale, yscale=scale, xlim=(least, 1.05), ylim=(least, 1.05))
    frame(axes, "false positive rate (non-members taken for members)", "true positive rate (members found)")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    save_figure(figure, path)
