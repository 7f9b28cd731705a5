"""How far SGD can move a model: a bound that every honest update keeps, and that no site sets."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_federation import rounds_of
from torch import nn

from gliofed.client.round.training import train_one_round
from gliofed.server.round.ceiling import ROUNDING, ceiling, reference_share
from gliofed.server.round.model import initial_model
from gliofed.shared.algorithms.groups import Local
from gliofed.shared.algorithms.optimizers import rate_of
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.tasks import TASKS
from gliofed.simulation.simulate import simulate

Config = Callable[..., RunConfig]
WORDS = ("optimizer=sgd", "train.lr=0.3", "train.clip=2.0", "rounds=5", "optimizer.schedule=cosine")


def moved(run: RunConfig, round: int, weight: torch.Tensor, gradients: list[torch.Tensor]) -> float:
    """The norm of an update from gradients that are clipped as in a site."""
    parameter = nn.Parameter(weight.clone())
    sgd = torch.optim.SGD(
        [parameter], lr=rate_of(run, round), momentum=run.optimizer.momentum, weight_decay=run.train.weight_decay
    )
    for gradient in gradients:
        parameter.grad = gradient.clone()
        nn.utils.clip_grad_norm_([parameter], run.train.clip or math.inf)
        sgd.step()
    return (parameter.detach() - weight).norm().item()


def moved_each(run: RunConfig, gradients: list[torch.Tensor], steps: int) -> list[float]:
    """The same in each of several rounds of one optimiser."""
    weight = torch.zeros_like(gradients[0])
    totals = [moved(run, 1, weight, gradients[:count]) for count in range(0, len(gradients) + 1, steps)]
    return [after - before for before, after in pairwise(totals)]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("decay", [0.0, 0.01, 1.0])
def test_no_gradients_move_the_weights_beyond_it(run_config: Config, momentum: float, decay: float) -> None:
    """Random ones, of which many are clipped; and it is reached where weights and gradients point one way."""
    run = run_config(*WORDS, f"optimizer.momentum={momentum}", f"train.weight_decay={decay}")
    generator = torch.Generator().manual_seed(0)
    for steps in (1, 2, 7, 30):
        for round in (1, 4):
            weight = 3 * torch.randn(20, generator=generator)
            limit = ceiling(run, round, steps, weight.norm().item())
            drift = torch.randn(20, generator=generator)
            for size in (0.01, 1.0, 100.0):
                noise = [drift + size * torch.randn(20, generator=generator) for _ in range(steps)]
                assert moved(run, round, weight, noise) <= limit
            away = [-1e6 * weight] * steps  # against the decay: no further than without it
            assert moved(run, round, weight, away) <= limit
            towards = moved(run, round, weight, [1e6 * weight] * steps)
            if decay == 0 or steps == 1:
                assert towards == pytest.approx(limit / ROUNDING, rel=1e-3)
            else:
                assert towards <= limit


def test_without_decay_it_is_the_sum_of_the_reaches(run_config: Config) -> None:
    """The closed form of its docstring."""
    run = run_config(*WORDS, "optimizer.momentum=0.9", "train.weight_decay=0")
    reach = sum((1 - 0.9**k) / (1 - 0.9) for k in range(1, 9))
    assert ceiling(run, 1, 8, 100.0) == pytest.approx(0.3 * 2.0 * reach * ROUNDING)
    assert ceiling(run, 1, 8, 100.0) < 8 * 0.3 * 2.0 / (1 - 0.9)


@pytest.mark.parametrize("moments", ["kept", "averaged"])
def test_a_momentum_that_goes_on_is_in_it(run_config: Config, moments: str) -> None:
    """After a long time in one direction a round begins at full speed; fresh, an honest site would be clipped."""
    words = (*WORDS, "optimizer.momentum=0.9", "train.weight_decay=0", "train.lr=0.3", "rounds=40")
    run = run_config(*words, "optimizer.schedule=constant", f"optimizer.moments={moments}")
    steps, rounds = 3, 40
    path = moved_each(run, [torch.ones(20)] * (steps * rounds), steps)
    limit = ceiling(run, 1, steps, 0.0)
    assert all(distance <= limit for distance in path)
    assert path[-1] == pytest.approx(limit / ROUNDING, rel=1e-3)
    fresh = run_config(*words, "optimizer.schedule=constant")
    assert path[-1] > 2 * ceiling(fresh, 1, steps, 0.0)


def test_other_runs_have_none(run_config: Config) -> None:
    assert ceiling(run_config(), 1, 8, 1.0) == math.inf
    assert ceiling(run_config("optimizer=sgd", "privacy=local_update"), 1, 8, 1.0) == math.inf


@pytest.mark.parametrize(("hostile", "expected"), [(0.1, 0.2), (0.21, 0.21), (1e9, 0.3), (0.0, 1.0)])
def test_one_of_three_moves_the_reference_within_the_others_or_to_the_ceiling(hostile: float, expected: float) -> None:
    """To the ceiling only where it sends nothing, and so gains nothing."""
    assert reference_share([0.2, hostile, 0.3]) == expected


@pytest.mark.parametrize("hostile", [0.0, 1e-9, 1.0, 1e9])
def test_of_two_sites_neither_sets_it(hostile: float) -> None:
    assert reference_share([0.2, hostile]) == 1.0


def test_a_majority_that_sends_nothing_does_not_freeze_the_model() -> None:
    assert reference_share([0.2, 0.0, 1e-6, 0.0]) == 1.0


SGD = ("optimizer=sgd", "optimizer.momentum=0.9", "train.lr=0.05", "sites=4", "round.evaluate_every=0", "rounds=3")


def test_honest_updates_are_not_clipped(values: Callable[..., dict[str, Any]], out: Path) -> None:
    assert simulate(values(*SGD, "train.steps=4", f"out={out}")).status == "done"
    lines = [line for event in rounds_of(out) for line in event["sites"].values()]
    assert not any("clipped" in line or "peak" in line for line in lines), lines
    assert all(0.5 < line["size"] < 1.5 for line in lines), [line["size"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sites_of_few_and_many_steps_are_alike(run_config: Config, momentum: float) -> None:
    """Steps of SGD go on in one direction, and momentum gathers: by the root of its steps, as AdamW's updates are
    measured, a large hospital's update would be several times a small one's."""
    run = run_config("optimizer=sgd", f"optimizer.momentum={momentum}", f"train.lr={0.05 * (1 - momentum)}")
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(2, 1, 8, 8, 8, generator=generator) for _ in range(30)]
    batches = [Batch(image, (image > 1).float()) for image in images]
    shares, roots = [], []
    for steps in (2, 8, 30):
        model, cpu = initial_model(run), torch.device("cpu")
        local = Local(config=run.algorithm, optimizer=run.optimizer, steps=steps, rate=rate_of(run, 1))
        train_one_round(model, batches, TASKS[run.task], run.train, steps, cpu, local)
        before = nn.utils.parameters_to_vector(initial_model(run).parameters())
        norm = (nn.utils.parameters_to_vector(model.parameters()) - before).norm().item()
        shares.append(norm / ceiling(run, 1, steps, before.norm().item()))
        roots.append(norm / math.sqrt(steps))
    assert max(shares) / min(shares) < 2 < max(roots) / min(roots), (shares, roots)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["scale", "flip", "bias:19"])
def test_attackers_are(values: Callable[..., dict[str, Any]], out: Path, fault: str) -> None:
    assert simulate(values(*SGD, f"faults={{site-2:{fault}}}", f"out={out}")).status == "done"
    for event in rounds_of(out):
        assert event["sites"]["site-2"]["clipped"] < 0.2, event
        assert not any("clipped" in event["sites"][site] for site in ("site-1", "site-3", "site-4"))


def test_of_two_sites_an_attacker_stays_below_the_ceiling(values: Callable[..., dict[str, Any]], out: Path) -> None:
    """Neither is measured by the other."""
    words = ("sites=2", "train.clip=0.1", "faults={site-2:scale}", f"out={out}")
    assert simulate(values(*SGD, *words)).status == "done"
    for event in rounds_of(out):
        honest, hostile = event["sites"].values()
        assert "clipped" not in honest and hostile["clipped"] == pytest.approx(1 / hostile["size"], rel=1e-3)
