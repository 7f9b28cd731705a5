"""What takes local steps, and at which rate: each against PyTorch's own, written out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_federation import model_of
from small_run import as_given
from torch import nn
from torch.testing import assert_close

from gliofed.client.round.training import train_one_round
from gliofed.server.round.model import initial_model
from gliofed.shared.algorithms import FEDAVG
from gliofed.shared.algorithms.groups import Groups, Local
from gliofed.shared.algorithms.moments import load_moments, possible
from gliofed.shared.algorithms.muon import COEFFICIENTS, ITERATIONS, Muon, orthogonal
from gliofed.shared.algorithms.optimizers import ADAMW, MUON_MOST, OPTIMIZERS, SCHEDULES, USUAL, rate_of
from gliofed.shared.codec import travelling
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.tasks.segmentation import Segmentation
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

Config = Callable[..., RunConfig]


def rates(run: RunConfig) -> list[float]:
    return [rate_of(run, round) for round in range(1, run.rounds + 1)]


def test_sgd_is_pytorch_s_on_the_clipped_gradient(run_config: Config) -> None:
    """With its momentum and weight decay, at the rate of the round."""
    run = run_config("optimizer=sgd", "optimizer.momentum=0.9", "train.lr=0.1", "train.clip=0.1")
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(2, 2, 1, 8, 8, 8, generator=generator) for _ in range(3)]
    batches = [Batch(image, (mask > 0.5).float()) for image, mask in images]
    ours, model = initial_model(run), initial_model(run).train()
    local = Local(config=run.algorithm, optimizer=run.optimizer, steps=3, rate=0.05)
    train_one_round(ours, batches, Segmentation(), run.train, 3, torch.device("cpu"), local)
    by_hand = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=run.train.weight_decay)
    for batch in batches:
        by_hand.zero_grad()
        Segmentation().loss(model(batch.image), batch.target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        by_hand.step()
    assert_close(travelling(ours), travelling(model), rtol=1e-4, atol=1e-6)


def test_schedules_begin_whole_and_never_reach_nothing(run_config: Config) -> None:
    for schedule in SCHEDULES:
        first, *_, last = rates(run_config(f"optimizer.schedule={schedule}", "rounds=50", "train.lr=0.2"))
        assert first == 0.2 and 0 < last <= 0.2
    constant = run_config("rounds=3")
    assert rates(constant) == [constant.train.lr] * 3, "the very same number: weights are bit for bit what they were"


def test_cosine_and_polynomial_are_those_of_pytorch(run_config: Config) -> None:
    """PyTorch steps its schedulers from round to round; ours needs to know none but this one."""
    weight = [nn.Parameter(torch.zeros(1))]
    for schedule, make in {
        "cosine": lambda sgd: torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 7),
        "polynomial": lambda sgd: torch.optim.lr_scheduler.PolynomialLR(sgd, 7, power=0.9),
    }.items():
        sgd = torch.optim.SGD(weight, lr=0.2)
        scheduler, expected = make(sgd), []
        for _ in range(7):
            expected += scheduler.get_last_lr()
            sgd.step()
            scheduler.step()
        run = run_config(f"optimizer.schedule={schedule}", "rounds=7", "train.lr=0.2")
        assert rates(run) == pytest.approx(expected)


def test_a_warmup_rises_evenly_and_the_schedule_follows(run_config: Config) -> None:
    run = run_config("optimizer.warmup=3", "optimizer.schedule=cosine", "rounds=7", "train.lr=0.4")
    shorter = run_config("optimizer.schedule=cosine", "rounds=4", "train.lr=0.4")
    assert rates(run) == pytest.approx([0.1, 0.2, 0.3, *rates(shorter)])


@pytest.mark.slow
def test_a_federation_steps_by_it(values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The setting and the round's rate reach each site: cosine's second of two rounds has half of it."""
    models = {}
    for name, words in {
        "adamw": (),
        "sgd": ("optimizer=sgd",),
        "cosine": ("optimizer=sgd", "optimizer.schedule=cosine"),
    }.items():
        out = tmp_path / name
        assert simulate(values("sites=2", "round.evaluate_every=0", *words, f"out={out}")).status == "done"
        models[name] = model_of(out)
    assert json.loads((out / "run.json").read_text())["run"]["optimizer"]["schedule"] == "cosine"
    first = next(iter(models["sgd"]))
    assert not torch.equal(models["sgd"][first], models["adamw"][first])
    assert not torch.equal(models["sgd"][first], models["cosine"][first])


def test_a_run_that_names_no_optimizer_is_what_it_was(run_config: Config) -> None:
    """Its hash is in approvals, logs and folders of runs that are to go on."""
    assert "optimizer" not in json.loads(run_config().as_json)
    other = run_config("optimizer.schedule=cosine")
    assert other.hash != run_config().hash and parse(RunConfig, other.as_json) == other


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("optimizer=sgd", "privacy=dp_sgd"), "what is set of optimizer with privacy=dp_sgd"),
        (("optimizer.schedule=cosine", "privacy=dp_sgd"), "optimizer.schedule=constant where"),
        (("optimizer=sgd", "train.clip=null"), "optimizer=sgd with train.clip=null"),
        (("optimizer.warmup=2",), "optimizer.warmup=2 with rounds=2"),
        (("optimizer=sgd", "optimizer.moments=kept"), "optimizer.moments=kept with optimizer.momentum=0"),
        (
            ("optimizer=muon", "optimizer.moments=averaged", "optimizer.momentum=0"),
            "moments=averaged with optimizer.momentum=0",
        ),
        (("strategy=nesterov", "strategy.momentum=0"), "strategy=nesterov with strategy.momentum=0"),
        (("optimizer.name=adam",), r"optimizer\.name=adam: must be 'adamw', 'sgd' or 'muon'"),
    ],
)
def test_what_cannot_be_is_refused(run_config: Config, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run_config(*words)


def test_sgd_needs_no_clip_where_nothing_else_relies_on_it(run_config: Config) -> None:
    run_config("optimizer=sgd", "train.clip=null", "fold.clip=null")
    run_config("optimizer=sgd", "train.clip=null", "privacy=local_update")


@pytest.mark.parametrize("words", [("optimizer=adamw",), ("optimizer=sgd", "optimizer.momentum=0.9")])
def test_moments_that_are_kept_go_on(run_config: Config, words: tuple[str, ...]) -> None:
    """Two rounds of two steps from what was kept are four steps; from fresh moments they are not."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(2, 2, 1, 8, 8, 8, generator=generator) for _ in range(4)]
    batches = [Batch(image, (mask > 0.5).float()) for image, mask in images]

    def trained(moments: str, rounds: int) -> dict[str, torch.Tensor]:
        run, kept, steps = run_config(*words, f"optimizer.moments={moments}"), Groups(), 4 // rounds
        model = initial_model(run)
        for round in range(rounds):
            local = Local(config=run.algorithm, optimizer=run.optimizer, steps=steps, rate=0.01, kept=kept)
            drawn = batches[round * steps : (round + 1) * steps]
            kept = train_one_round(model, drawn, Segmentation(), run.train, steps, torch.device("cpu"), local).kept
        return travelling(model)

    assert_close(trained("kept", 2), trained("kept", 1), rtol=0, atol=0)
    assert any(not torch.equal(one, trained("fresh", 1)[name]) for name, one in trained("fresh", 2).items())


@pytest.mark.parametrize("growth", [0.1, 0.9, 1.0, 1.11, 3.0])
def test_moments_that_gradients_made_are_possible(growth: float) -> None:
    """Bit for bit, also where gradients grow or shrink evenly, which is where the ratio is largest."""
    weight = nn.Parameter(torch.zeros(5))
    adamw = torch.optim.AdamW([weight])
    for step in range(30):
        weight.grad = growth**step * torch.tensor([1.0, -1.0, 1e-3, (-1.0) ** step, 0.0])
        adamw.step()
        groups = {name: {"w": adamw.state[weight][name]} for name in ("exp_avg", "exp_avg_sq")}
        assert_close(possible(groups), groups, rtol=0, atol=0)


def test_a_first_moment_without_its_second_moves_nothing_far() -> None:
    """A hostile site puts all its first moment where nobody has a second: AdamW would step by rate * 1e8."""
    sent = {"exp_avg": {"w": torch.tensor([1.0, 1.0])}, "exp_avg_sq": {"w": torch.tensor([0.0, 1e-12])}}

    def moved(groups: Groups) -> float:
        weight = nn.Parameter(torch.zeros(2))
        adamw = torch.optim.AdamW([weight], lr=0.01)
        optimizer = replace(ADAMW, moments="averaged")
        local = Local(config=FEDAVG, optimizer=optimizer, round=1000, steps=4, rate=0.01, sent=groups)
        load_moments(adamw, {"w": weight}, local)
        weight.grad = torch.zeros(2)
        adamw.step()
        return weight.detach().abs().max().item()

    assert moved(sent) > 1e5
    assert moved(possible(sent)) < 7.3 * 0.01


def test_muon_is_pytorch_s_for_a_matrix_and_takes_a_kernel_as_one() -> None:
    """Whose products are in bf16, so its direction is the same and its values to a few percent."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 4, 3, generator=generator)
    gradients = [torch.randn(6, 4, 3, generator=generator) for _ in range(4)]
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone().flatten(1))
    stepper = Muon([ours], 0.1, 0.01, 0.95)
    by_hand = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01, momentum=0.95, adjust_lr_fn="original")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient, gradient.flatten(1)
        stepper.step()
        by_hand.step()
    moved, expected = (ours - start).flatten(1), theirs - start.flatten(1)
    assert (moved - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("shape", [(8, 3), (3, 8), (1, 9)])
def test_orthogonal_is_nearly_the_polar_factor(shape: tuple[int, int]) -> None:
    """By the slow way, a singular value decomposition: the same singular vectors, and values between .6 and 1.3."""
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    values = u.T @ orthogonal(matrix) @ vh.T
    assert_close(values, torch.diag(values.diag()), rtol=0, atol=1e-4)
    assert ((0.6 < values.diag()) & (values.diag() < 1.3)).all()
    assert (orthogonal(torch.zeros(shape)) == 0).all()


def test_no_singular_value_becomes_larger_than_muon_says() -> None:
    """The server clamps what moved further, so an honest site must not."""
    values = torch.linspace(0, 1, 10_001)
    for _ in range(ITERATIONS):
        a, b, c = COEFFICIENTS
        values = a * values + b * values**3 + c * values**5
    assert values.abs().max() < MUON_MOST


def test_muon_moves_any_tensor_as_far_as_it_says() -> None:
    """Whatever the gradient's size: norms, biases and kernels, which the server bounds by what is said here."""
    for shape in [(5,), (), (4, 2, 3, 3, 3), (1, 7), (9, 2)]:
        for size in (1e-6, 1.0, 1e6):
            weight = nn.Parameter(torch.zeros(shape))
            weight.grad = size * torch.randn(shape, generator=torch.Generator().manual_seed(2))
            Muon([weight], 0.1, 0.0, 0.95).step()
            assert weight.abs().max() <= 0.1 * OPTIMIZERS["muon"].farthest(shape)
            usual = 0.1 * OPTIMIZERS["muon"].length(shape)
            assert 0.6 * usual < weight.norm() < 1.3 * usual, (shape, size)


def test_a_step_of_muon_is_as_strong_in_a_wide_layer_as_in_a_narrow_one() -> None:
    """So a rate that was chosen at one width holds at another: the largest singular value of what is added."""
    strengths = []
    for width in (8, 64):
        weight = nn.Parameter(torch.zeros(width, width, 3, 3, 3))
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
        Muon([weight], 0.1, 0.0, 0.9).step()
        strengths.append(torch.linalg.matrix_norm(weight.flatten(1), 2).item())
    assert 0.8 < strengths[0] / strengths[1] < 1.25


def test_muon_leaves_alone_what_a_step_does_not_use() -> None:
    """With momentum of other sites: as if steps without a gradient had not been, but for the weight's decay."""
    generator = torch.Generator().manual_seed(3)
    start, momentum, *gradients = torch.randn(4, 4, 3, generator=generator)
    weights = [nn.Parameter(start.clone()) for _ in range(2)]
    for weight, steps in zip(weights, (gradients, [0 * start, gradients[0], 0 * start, gradients[1]]), strict=True):
        stepper = Muon([weight], 0.1, 0.0, 0.9)
        stepper.state[weight]["momentum_buffer"] = momentum.clone()
        for weight.grad in steps:
            stepper.step()
    assert torch.equal(*weights) and not torch.equal(weights[0], start)


def test_a_run_where_nothing_is_said_has_what_usual_says() -> None:
    """dp_sgd, which has steps of its own, tells by it whether somebody wanted others."""
    assert parse_settings(as_given("model=unet"))[0].optimizer == replace(USUAL, moments="averaged")
    assert parse_settings(as_given("model=unet", "privacy=dp_sgd"))[0].optimizer == USUAL
