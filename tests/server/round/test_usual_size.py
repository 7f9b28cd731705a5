"""How large an update usually is, which the configuration alone says: of each optimiser, and of noise."""

import math
from collections.abc import Callable

import pytest
import torch

from gliofed.client.round.training import train_one_round
from gliofed.server.round.clip import usual_size
from gliofed.server.round.model import initial_model
from gliofed.shared.accounting import noise_for
from gliofed.shared.algorithms import FEDAVG
from gliofed.shared.algorithms.groups import Local
from gliofed.shared.algorithms.optimizers import OPTIMIZERS
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.noise import noisy_mean
from gliofed.shared.tasks.segmentation import Segmentation

CLIP = 1.5
"""As it is by default."""


@pytest.mark.parametrize("steps", [1, 20])
def test_usual_size_is_about_that_of_adamw_on_noise(run_config: Callable[..., RunConfig], steps: int) -> None:
    """Gradients without any sign in common, as in a minimum; in other places steps go on in one direction."""
    config = run_config("train.lr=0.01")
    weight = torch.nn.Parameter(torch.zeros(10_000))
    optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        weight.grad = torch.randn(10_000, generator=generator)
        optimizer.step()
    size = weight.detach().norm().item() / math.sqrt(steps)
    assert 0.5 < size / usual_size(config, [(10_000,)], 1, 8) < 1.5


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_usual_size_of_private_runs_is_that_of_sgd_on_their_noise(
    run_config: Callable[..., RunConfig], momentum: float
) -> None:
    """With momentum, which starts anew every round."""
    words = ("privacy=dp_sgd", "privacy.epsilon=1", "train.steps=6", "privacy.batch=4", f"privacy.momentum={momentum}")
    config = run_config(*words)
    privacy = config.privacy
    sigma = noise_for(1.0, 1e-4, 4 / 100, 6 * config.rounds)
    weight = torch.nn.Parameter(torch.zeros(10_000))
    optimizer = torch.optim.SGD([weight], lr=privacy.lr, momentum=momentum)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        weight.grad = torch.randn(10_000, generator=generator) * sigma * privacy.clip / privacy.batch
        optimizer.step()
    size = weight.detach().norm().item() / math.sqrt(6)
    assert usual_size(config, [(10_000,)], 1, 100) == pytest.approx(size, rel=0.05)


@pytest.mark.slow
def test_a_private_site_of_few_patients_is_measured_by_its_own_noise(run_config: Callable[..., RunConfig]) -> None:
    """Four patients need several times the noise of a thousand for the same epsilon; the rate may fall."""
    words = ("privacy=dp_sgd", "privacy.epsilon=1", "train.steps=2", "privacy.batch=4")
    many, few = (usual_size(run_config(*words), [(10_000,)], 1, patients) for patients in (1000, 4))
    assert 3 < few / many < 10
    falling = run_config(*words, "privacy.schedule=linear", "rounds=4")
    assert usual_size(falling, [(100,)], 4, 9) == pytest.approx(usual_size(falling, [(100,)], 1, 9) / 4)


@pytest.mark.parametrize("mechanism", ["dp_sgd", "local_update"])
def test_a_budget_without_any_noise_ends_no_round(run_config: Callable[..., RunConfig], mechanism: str) -> None:
    """At the delta that is assumed here; the site may have another, for which there is some."""
    config = run_config(f"privacy={mechanism}", "privacy.epsilon=0.003")
    assert 0 < usual_size(config, [(100,)], 1, 10**7) < math.inf


def test_usual_size_of_a_hidden_update_is_that_of_one_with_its_noise(run_config: Callable[..., RunConfig]) -> None:
    config = run_config("privacy=local_update", "train.steps=2")
    update = {"w": torch.full((10_000,), 1.0)}  # clipped to a norm of 1
    sigma = noise_for(config.privacy.epsilon, 1e-4, 1.0, config.rounds)
    norm = noisy_mean([update.__getitem__], update, config.privacy.clip, sigma, 7)["w"].norm().item()
    assert usual_size(config, [(10_000,)], 1, 100) == pytest.approx(norm / math.sqrt(2), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.95])
def test_an_honest_update_of_muon_has_about_the_usual_size_whatever_its_steps(
    run_config: Callable[..., RunConfig], momentum: float
) -> None:
    """Of a model that learns, whose gradients agree from step to step: sites of one step and of fifty are in one round,
    and where a single update came, the usual size alone says how large it may be."""
    config = run_config("optimizer=muon", f"optimizer.momentum={momentum}", "train.lr=0.05")
    sizes = []
    for steps in (1, 8, 50):
        model, batches = initial_model(config), boxes(steps)
        start = {name: each.detach().clone() for name, each in model.named_parameters()}
        local = Local(config=FEDAVG, optimizer=config.optimizer, steps=steps, rate=0.05)
        train_one_round(model, batches, Segmentation(), config.train, steps, torch.device("cpu"), local)
        moved = math.hypot(*((each.detach() - start[name]).norm() for name, each in model.named_parameters()))
        usual = usual_size(config, [each.shape for each in start.values()], 1, 8)
        sizes.append(moved / usual / OPTIMIZERS["muon"].reach(steps, momentum))
    assert 0.6 < min(sizes) and max(sizes) < CLIP


def boxes(steps: int) -> list[Batch]:
    """Bright boxes in noise, and where they are."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(steps):
        target = torch.zeros(2, 1, 16, 16, 16)
        for sample in target:
            x, y, z = torch.randint(0, 10, (3,), generator=generator).tolist()
            sample[0, x : x + 6, y : y + 6, z : z + 6] = 1
        batches.append(Batch(target + 0.3 * torch.randn(target.shape, generator=generator), target))
    return batches
