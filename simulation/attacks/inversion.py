"""Gradient inversion: what a server that follows the protocol can see of one patient in what a site sends.

The attacker is given more than a server has. They know the model, its weights and the loss, and of the patch that they
look for everything but the image: the mask or the grade, and which modalities there are. Patches are cut to SIDE
voxels, since fewer are easier to find. Two things stand beside what is found: the mean patch of other patients, which
an attack must beat to have seen anything; and a control, the same attack on a small net that keeps every voxel, since
an attack that works nowhere shows nothing.
Source: Geiping et al. 2020, arXiv:2003.14053. Two things differ, see `invert`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliofed.client.round.privacy import patient_gradient
from gliofed.client.round.training import train_one_round
from gliofed.server.round.model import first_model
from gliofed.shared.algorithms import ALGORITHMS, sent_of
from gliofed.shared.algorithms.groups import Local, zeros
from gliofed.shared.algorithms.optimizers import rate_of
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Source, batches, of_one
from gliofed.shared.data.samples import Batch
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.parse import ConfigError
from gliofed.shared.progress import Bar
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.seeding import generator, seed_of
from gliofed.shared.tasks import TASKS, Task, reading_of
from gliofed.shared.tasks.grading import Grading
from gliofed.simulation.attacks.found_images import draw_found, figures
from gliofed.simulation.attacks.settings import AttackConfig, Row
from gliofed.simulation.attacks.target import Target, plan_of

SIDE = 16
"""Voxels along each edge of the patch that is attacked, at most."""
CONTROL_SIDE = 8
LR = 0.1
"""Of Adam, in the frequency domain."""
TV = 1e-3
"""Weight of the total variation beside the distance."""
OTHERS = 16
"""Patients in the mean patch, at most."""


def inversion(targets: Sequence[Target], settings: AttackConfig, out: Path) -> list[Row]:
    """Reconstruct one patch of each run from what the server sees; write inversion.png; a row for each run and case.

    The patch is drawn as in training, of the first site's first training patient; the weights are the first round's.
    The site also has the noise of privacy=dp_sgd where the run had none: that of its settings, 8 for epsilon unless
    said. In that case too the step holds no other patient. Figures are those of `figures`.
    """
    for target in targets:
        if MECHANISMS[mechanism := target.run.privacy.mechanism].unit == "site":
            raise ConfigError(f"run={target.folder}: has privacy={mechanism}; attack=inversion is of single patients")
    scenes = [(target.label, _open(target, settings.seed)) for target in targets]
    scenes.insert(0, ("control net", _control(scenes[0][1], targets[0], settings.seed)))
    rows: list[Row] = []
    pictures = []
    steps, total = count(1), sum(len(scene.seen) for _, scene in scenes) * settings.steps
    with Bar("inverting") as bar:
        for label, scene in scenes:
            found = {"other patients": scene.others}
            for name, gradients in scene.seen.items():
                seed = seed_of(settings.seed, "inversion", name)
                like = replace(scene.truth, image=torch.zeros_like(scene.truth.image))
                report = lambda: bar.report(next(steps), total)  # noqa: E731  # in one line what each step does
                found[name] = invert(
                    scene.model, scene.task, gradients, like, seed, steps=settings.steps, report=report
                )
            of_run = {name: figures(image, scene.truth.image) for name, image in found.items()}
            rows += [{"run": label, "seen": name, **values} for name, values in of_run.items()]
            pictures.append((label, scene.truth.image, found, of_run))
    modality = targets[0].run.data.modalities[0]
    draw_found(pictures, out / "inversion.png", ", ".join(filter(None, [f"one slice, {modality}", targets[0].note])))
    return rows


def invert(
    model: nn.Module,
    task: Task,
    gradients: Sequence[Tensor],
    like: Batch,
    seed: int,
    *,
    steps: int,
    report: Callable[[], None] = lambda: None,
) -> Tensor:
    """Find an image, of the shape of like.image, whose gradients point as `gradients` do, one for each parameter.

    The search starts at like.image, flat or not; the rest of `like` is known to the attacker. `report` is called once a
    step.
    As in Geiping et al. the distance is of angles, so that no scale of `gradients` matters, plus the total variation.
    Unlike there it is the mean of the layers' own distances: over all parameters at once the last layer, whose gradient
    is the largest and says the least, hides the others (any noise then comes within .07). And what is searched are the
    image's frequencies, the low ones first: voxel by voxel the nets here are content with noise.
    """
    rng = torch.Generator().manual_seed(seed)
    spectrum = _spectrum(like.image.shape[-3:])
    deviation = like.image.std()
    scale = deviation if deviation > 1e-3 else torch.ones(())  # a flat start has no contrast to go by
    sought = (LR * torch.randn(like.image.shape, generator=rng)).requires_grad_()
    optimizer = torch.optim.Adam([sought], lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parameters = list(model.parameters())

    def image() -> Tensor:
        waves = torch.fft.rfftn(sought, dim=(-3, -2, -1)) * spectrum
        change: Tensor = torch.fft.irfftn(waves, s=like.image.shape[-3:], dim=(-3, -2, -1))
        return like.image + scale * change

    for _ in range(steps):
        found = image()
        loss = task.loss(model(*replace(like, image=found).inputs), like.target, like.weight)
        own = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
        objective = angle(own, gradients) + TV * total_variation(found) / scale
        (sought.grad,) = torch.autograd.grad(objective, [sought])
        optimizer.step()
        schedule.step()
        report()
    return image().detach()


def angle(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Mean over layers of one minus the cosine of both gradients; layers where `other` is zero are left out."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if b.any()]
    return torch.stack([1 - F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs]).mean()


def total_variation(image: Tensor) -> Tensor:
    """Mean step between neighbours along each of the last three axes, added up."""
    steps = [image.diff(dim=axis).abs() for axis in (-3, -2, -1)]
    return torch.stack([step.mean() for step in steps if step.numel()]).sum()


def privately(gradients: Sequence[Tensor], clip: float, sigma: float, seed: int) -> list[Tensor]:
    """What a private step makes of one patient's gradients: cut to the norm `clip`, with noise of sigma * clip.

    The division by the expected batch is left out: the attacker looks at angles.
    """
    rng = torch.Generator().manual_seed(seed)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    factor = min(1.0, clip / (norm + 1e-6))  # as Opacus has it
    return [factor * g + sigma * clip * torch.randn(g.shape, generator=rng) for g in gradients]


def update(model: nn.Module, steps: int, drawn: Iterable[Batch], task: Task, run: RunConfig) -> list[Tensor]:
    """The update of so many local steps, negative: what the attacker takes for a gradient."""
    trained = copy.deepcopy(model)
    method, own = ALGORITHMS[run.algorithm.name], dict(trained.named_parameters())
    sent, kept = zeros(sent_of(run), own), zeros(method.kept, own)  # as in a run's first round
    local = Local(
        config=run.algorithm, optimizer=run.optimizer, steps=steps, rate=rate_of(run, 1), sent=sent, kept=kept
    )
    train_one_round(trained, drawn, task, run.train, steps, torch.device("cpu"), local)
    pairs = zip(model.parameters(), trained.parameters(), strict=True)
    return [(before - after).detach() for before, after in pairs]


@dataclass(frozen=True)
class _Scene:
    """One patient's patch, and what is seen and guessed of it."""

    model: nn.Module
    task: Task
    truth: Batch
    others: Tensor
    """Mean patch of other patients."""
    seen: dict[str, list[Tensor]]


def _open(target: Target, seed: int) -> _Scene:
    run, patients, task = target.run, target.cohorts[0].train, TASKS[target.run.task]
    if run.model.dropout:  # each step of the search would look through another mask
        raise ConfigError(
            f"run={target.folder}: model.dropout={run.model.dropout:g}; attack=inversion needs one without"
        )
    model = first_model(run, SimulationFolder(target.folder)).train()
    truth = _patch(patients[0], run, seed)
    others = [patient for cohort in target.cohorts for patient in (*cohort.train, *cohort.validation)][1 : OTHERS + 1]
    mean = torch.stack([_patch(patient, run, seed).image for patient in others]).mean(0) if others else truth.image * 0
    gradients = [row[0].detach() for row in patient_gradient(model, truth, task, torch.float32)[1]]
    sigma = plan_of(target)[0].sigma
    steps = run.train.local_steps(len(patients))
    source = Source(patients, run.data, run.train, reading_of(run), (seed, "inversion", "round"))
    drawn = map(_middle, batches(source, steps, truth.image.device))
    seen = {
        "gradient": gradients,
        **({} if run.private else {"update": update(model, steps, chain([truth], drawn), task, run)}),
        "private": privately(gradients, run.privacy.clip, sigma, seed_of(seed, "inversion", "noise")),
    }
    return _Scene(model, task, truth, mean, seen)


def _control(scene: _Scene, target: Target, seed: int) -> _Scene:
    """The part of the same patch with most contrast, in one modality, and a net without norm or pool that grades it."""
    images = torch.cat([image.flatten(0, -4)[:1, None] for image in (scene.truth.image, scene.others)])
    sides = [min(CONTROL_SIDE, side) for side in images.shape[-3:]]
    parts = images.unfold(2, sides[0], 2).unfold(3, sides[1], 2).unfold(4, sides[2], 2).flatten(2, 4)
    truth, others = parts[:, :, parts[0, 0].flatten(1).std(dim=1).argmax()].unbind()
    truth, others = truth[None], others[None]
    deviation = truth.std().clamp(min=1e-6)
    batch = Batch((truth - truth.mean()) / deviation, torch.ones(1, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "inversion", "control") % 2**32)
        voxels = batch.image[0, 0].numel()
        model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * voxels, 1))
    task = Grading()
    gradients = [row[0].detach() for row in patient_gradient(model, batch, task, torch.float32)[1]]
    private = privately(
        gradients, target.run.privacy.clip, plan_of(target)[0].sigma, seed_of(seed, "inversion", "noise")
    )
    return _Scene(model, task, batch, (others - truth.mean()) / deviation, {"gradient": gradients, "private": private})


def _patch(patient: Patient, run: RunConfig, seed: int) -> Batch:
    """One sample as training draws it; grades weigh the same, since balanced weights need the cohort."""
    rng = generator(seed, "inversion", patient.name)
    drawn = of_one(patient, run.data, replace(run.train, class_weights=None), rng, reading_of(run), 1)
    return _middle(drawn.to(torch.device("cpu")))


def _middle(batch: Batch) -> Batch:
    """Cut what is longer than SIDE along D, H and W at both ends."""
    image, target = batch.image, batch.target
    for axis, side in zip((-3, -2, -1), image.shape[-3:], strict=True):
        low, kept = max(0, side - SIDE) // 2, min(side, SIDE)
        image = image.narrow(axis, low, kept)
        target = target.narrow(axis, low, kept) if batch.target.dim() == batch.image.dim() else target
    return replace(batch, image=image.contiguous(), target=target.contiguous())


def _spectrum(shape: Sequence[int]) -> Tensor:
    """Amplitude of each frequency of rfftn over `shape`, falling as in natural images, 1 on average."""
    axes = [torch.fft.fftfreq(side) for side in shape[:-1]] + [torch.fft.rfftfreq(shape[-1])]
    squares = [axis**2 for axis in torch.meshgrid(*axes, indexing="ij")]
    frequency = torch.stack(squares).sum(0).sqrt().clamp(min=1 / max(shape))
    amplitude = 1 / frequency
    return amplitude / amplitude.mean()
