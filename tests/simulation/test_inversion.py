"""Gradient inversion finds an image where theory says that it must, and does not where noise says that it cannot."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from gliofed.client.round.privacy import patient_gradient
from gliofed.shared.data.samples import Batch
from gliofed.shared.tasks.grading import Grading
from gliofed.simulation.attacks.found_images import figures
from gliofed.simulation.attacks.inversion import inversion, invert, privately, update
from gliofed.simulation.attacks.settings import AttackConfig
from gliofed.simulation.attacks.target import open_target
from gliofed.simulation.simulate import simulate

SIDE = 8


@pytest.fixture
def scan() -> Batch:
    """A ball with a brighter corner, 1 x 1 x 8 x 8 x 8, and a grade."""
    place = torch.stack(torch.meshgrid(*[torch.arange(SIDE) - (SIDE - 1) / 2] * 3, indexing="ij"))
    ball = (place.norm(dim=0) < SIDE / 3).float() + 0.3 * ((place - 1).norm(dim=0) < 2).float()
    return Batch(ball[None, None] - 0.5, torch.ones(1, 1))


@pytest.fixture
def net() -> nn.Module:
    """Without a norm or a pool: its last layer's gradient holds every feature of every voxel."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * SIDE**3, 1))


def gradient(net: nn.Module, scan: Batch) -> list[Tensor]:
    return [row[0] for row in patient_gradient(net, scan, Grading(), torch.float32)[1]]


def search(net: nn.Module, gradients: list[Tensor], scan: Batch) -> dict[str, float]:
    """How near an attacker who starts from nothing comes."""
    like = replace(scan, image=torch.zeros_like(scan.image))
    return figures(invert(net, Grading(), gradients, like, 3, steps=300), scan.image)


@pytest.mark.slow
def test_a_net_that_keeps_every_voxel_is_inverted(net: nn.Module, scan: Batch) -> None:
    """If the attack did not work here, its failure with the real models would prove nothing."""
    assert search(net, gradient(net, scan), scan)["psnr"] > 25


@pytest.mark.slow
def test_noise_hides_what_the_gradient_showed(net: nn.Module, scan: Batch) -> None:
    """The same attack on the same patient; the noise is that of a usual budget, a deviation of one clip."""
    private = privately(gradient(net, scan), clip=0.25, sigma=1.0, seed=0)
    assert abs(search(net, private, scan)["correlation"]) < 0.3


def test_private_gradients_are_clipped_and_noisy() -> None:
    """Against arithmetic: norm 5 becomes norm 1; the noise's deviation is sigma times the clip."""
    given = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert_close(privately(given, clip=1.0, sigma=0.0, seed=0), [torch.tensor([0.6]), torch.tensor([0.8])])
    assert_close(privately(given, clip=10.0, sigma=0.0, seed=0), given)
    [noise] = privately([torch.zeros(10_000)], clip=0.5, sigma=4.0, seed=0)
    assert noise.std().item() == pytest.approx(2.0, rel=0.05)


def test_an_update_points_as_its_steps_went(net: nn.Module, scan: Batch, run_config: Callable[..., Any]) -> None:
    """AdamW's first step is the sign of the gradient, times its learning rate; the model itself stays as it was."""
    run = run_config("train.lr=0.001", "train.weight_decay=0")
    seen, gradients = update(net, 1, [scan], Grading(), run), gradient(net, scan)
    for step, own in zip(seen, gradients, strict=True):
        clear = own.abs() > 1e-4  # AdamW's epsilon shows in smaller ones
        assert_close(step[clear], 0.001 * own[clear].sign(), rtol=1e-2, atol=1e-6)


def test_figures_forgive_brightness_and_contrast_and_nothing_else(scan: Batch) -> None:
    """A norm in the first layer hides both, so that no attack could have them."""
    image = scan.image
    assert figures(3 * image + 2, image)["psnr"] > 80
    assert figures(-image, image)["correlation"] == pytest.approx(-1)
    nothing = figures(-image, image)["psnr"]  # a negative image counts as a grey one
    span = (image.max() - image.min()).item()
    assert nothing == pytest.approx(10 * torch.log10(span**2 / image.var(correction=0)).item(), abs=1e-3)
    assert figures(torch.zeros_like(image), image)["correlation"] == 0


@pytest.mark.slow
def test_the_attack_has_a_row_for_each_case_and_draws_them(
    values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Two steps are no attack; they show that all parts fit a real run."""
    simulate(values("sites=1", "rounds=1", "train.steps=1", f"out={tmp_path}"))
    target = open_target(tmp_path, AttackConfig(device="cpu"))
    rows = inversion([target], AttackConfig(steps=2), tmp_path)
    control, of_run = ["other patients", "gradient", "private"], ["other patients", "gradient", "update", "private"]
    assert [row["seen"] for row in rows] == [*control, *of_run]
    assert (tmp_path / "inversion.png").stat().st_size > 10_000
