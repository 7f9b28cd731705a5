"""Dropout of channels, from a generator of its own."""

import json
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from gliofed.shared.config import ModelConfig, RunConfig
from gliofed.shared.models import build_model
from gliofed.shared.models.dropout import ChannelDropout, seed_layers
from gliofed.shared.models.unet import DoubleConv

CPU = torch.device("cpu")
RATE = 0.3


def dropped(seed: int, x: torch.Tensor) -> torch.Tensor:
    layer = ChannelDropout(RATE)
    seed_layers(layer, seed, CPU)
    result: torch.Tensor = layer(x)
    return result


def test_whole_channels_of_each_sample_fall_out_at_the_rate() -> None:
    """What stays is larger, so that the mean is what it was: 4000 draws, to five deviations."""
    x = torch.ones(40, 100, 2, 3, 4)
    result = dropped(0, x)
    means = result.mean(dim=(2, 3, 4))
    assert torch.isclose(means, torch.tensor(0.0)).logical_or(torch.isclose(means, torch.tensor(1 / (1 - RATE)))).all()
    assert result.var(dim=(2, 3, 4)).max() < 1e-9
    share = (means == 0).float().mean().item()
    assert share == pytest.approx(RATE, abs=5 * (RATE * (1 - RATE) / 4000) ** 0.5)
    assert len({tuple(row.tolist()) for row in means}) == 40, "each sample has a mask of its own"


def test_it_is_pytorch_s_with_another_generator() -> None:
    x = torch.randn(4, 8, 2, 2, 2)
    torch.manual_seed(0)
    seen = torch.stack([torch.nn.functional.dropout3d(x, RATE) for _ in range(500)])
    ours = torch.stack([dropped(seed, x) for seed in range(500)])
    assert set((seen / x).round(decimals=4).unique().tolist()) == set((ours / x).round(decimals=4).unique().tolist())


def test_the_same_seed_gives_the_same_masks_whatever_else_draws() -> None:
    x = torch.randn(4, 8, 2, 2, 2)
    first = dropped(7, x)
    torch.rand(100)  # of the process's generator
    assert torch.equal(dropped(7, x), first)
    assert not torch.equal(dropped(8, x), first)
    state = torch.get_rng_state()
    dropped(7, x)
    assert torch.equal(torch.get_rng_state(), state)


def test_layout_and_type_stay() -> None:
    """A copy into another layout would cost the convolution after it half its speed."""
    x = torch.randn(2, 8, 4, 4, 4).to(memory_format=torch.channels_last_3d).bfloat16()
    result = dropped(0, x)
    assert result.dtype == x.dtype and result.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("name", ["unet", "clstm_unet3d"])
def test_a_model_evaluates_and_is_saved_as_without_it(name: str) -> None:
    models = []
    for dropout in (None, RATE):
        torch.manual_seed(0)
        models.append(build_model(ModelConfig(name=name, preset="demo", dropout=dropout), 2, 1))
    plain, with_dropout = models
    assert_close(with_dropout.state_dict(), plain.state_dict(), rtol=0, atol=0)
    frames = (3,) if name == "clstm_unet3d" else ()
    x = torch.randn(1, *frames, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(with_dropout.eval()(x), plain.eval()(x))
    seed_layers(with_dropout, 0, CPU)
    first, second = with_dropout.train()(x), with_dropout(x)
    assert not torch.equal(first, second)
    seed_layers(with_dropout, 0, CPU)
    assert torch.equal(with_dropout(x), first)
    levels = [module for module in with_dropout.modules() if isinstance(module, DoubleConv)]
    assert sum(isinstance(module, ChannelDropout) for module in with_dropout.modules()) == len(levels) // 2 + 1


def test_a_run_without_it_is_what_it_was(run_config: Callable[..., RunConfig]) -> None:
    """The augmentation's dropout, of modalities, has always been there."""
    values = json.loads(run_config().as_json)
    assert "dropout" not in values["model"] and values["train"]["augment"]["dropout"] == 0
    assert run_config("model.dropout=0.3").hash != run_config().hash


def test_a_model_without_it_says_so() -> None:
    with pytest.raises(ValueError, match=r"model\.dropout=0\.3: lstm_unet has"):
        build_model(ModelConfig(name="lstm_unet", preset="demo", dropout=0.3), 2, 1)
