"""How large a run is, without building it, against what is built and drawn."""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from torch import nn

from gliofed.server.round.model import initial_model
from gliofed.shared.algorithms.fedbn import FedBN
from gliofed.shared.codec import travelling
from gliofed.shared.config import RunConfig
from gliofed.shared.data.augment import draw_changes
from gliofed.shared.models import MODELS, reads_series, task_of
from gliofed.shared.parse import ConfigError
from gliofed.shared.sizes import MOST_VOXELS, count, outline, step_voxels

SERIES = ("model=clstm_unet3d", "data.visits=5", "data.window=5")
GRADING = ("model=cnn_lstm", "data=phantom", "data.patch=[16,16,16]")


def of(run: RunConfig, name: str) -> RunConfig:
    """The run with another model, and what that is for."""
    return replace(run, task=task_of(name), model=replace(run.model, name=name))


@pytest.mark.parametrize("name", MODELS)
def test_an_outline_is_the_models(run_config: Callable[..., RunConfig], name: str) -> None:
    run = of(run_config(), name)
    real = travelling(initial_model(run))
    made = outline(run)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in made.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in real.items()
    }
    assert all(tensor.is_meta for tensor in made.values())
    assert count(made) == sum(tensor.numel() for tensor in real.values())
    assert not any("/" in name for name in made), "what is before a slash is a group on the wire"


@pytest.mark.parametrize(("part", "sentence"), [("", "nothing of the model is to stay"), ("all", "all of the model")])
def test_a_model_that_stays_at_home_does_so_in_part(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, part: str, sentence: str
) -> None:
    """Without norms FedBN would be FedAvg under another name; with nothing else there would be no mean."""
    monkeypatch.setattr(FedBN, "at_home", lambda self, model: frozenset(model.state_dict() if part else ()))
    with pytest.raises(ConfigError, match=f"algorithm=fedbn with model.name=unet: {sentence}"):
        run_config("algorithm=fedbn")
    run_config("algorithm=fedavg")


def test_drawing_goes_on_as_ever(run_config: Callable[..., RunConfig]) -> None:
    """What an outline leaves out is left out there alone."""
    outline(run_config())
    assert nn.init.normal_(nn.Linear(2, 2).weight).isfinite().all()


@pytest.mark.parametrize(
    ("words", "voxels"),
    [
        (("data.patch=[16,8,24]", "train.batch=3"), 3 * 16 * 8 * 24),
        ((*SERIES, "train.batch=2", "data.patch=[16,16,16]"), 2 * 5 * 16**3),
        (("model=lstm_unet", "model.iterations=7", "train.batch=2", "data.patch=[16,16,16]"), 2 * 7 * 16**3),
        (("model=lstm_unet", "model.iterations=null", "train.batch=2", "data.patch=[16,16,16]"), 2 * 3 * 16**3),
        (("privacy=dp_sgd", "privacy.patches=6", "train.batch=100", "data.patch=[16,16,16]"), 6 * 16**3),
    ],
)
def test_voxels_of_a_step(run_config: Callable[..., RunConfig], words: tuple[str, ...], voxels: int) -> None:
    assert step_voxels(run_config(*words)) == voxels


@pytest.mark.parametrize("preset", ["demo", "tiny"])
@pytest.mark.parametrize("name", MODELS)
def test_a_small_patch_counts_as_the_model_pads_it(
    run_config: Callable[..., RunConfig], name: str, preset: str
) -> None:
    """Else a server that asks for patches of a few voxels gets past the policy with far more of them."""
    run = of(run_config("train.batch=1", "data.patch=[1,9,5]", "data.window=1"), name)
    run = replace(run, model=replace(run.model, preset=preset))
    model = initial_model(run).eval()
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-3:].numel()))
    visits = [1] if reads_series(name) else []
    with torch.no_grad():
        model(torch.ones(1, *visits, len(run.data.modalities), *run.data.patch))
    assert step_voxels(run) == max(seen) * getattr(model, "iterations", 1)


@pytest.mark.parametrize("spacing", ["1.0", "[0.5,0.5,6.0]", "[3.0,0.4,1.0]"])
def test_no_turned_patch_is_cut_from_more(run_config: Callable[..., RunConfig], spacing: str) -> None:
    """With thick slices a block is much larger than its patch; the bound holds for every draw, within four times. All
    samples of a batch are turned together, so each counts."""
    augment = ("train.augment.rotation=180", "train.augment.scaling=0.5", "train.augment.chance=1")
    run = run_config(*augment, "train.batch=1", "data.patch=[32,24,16]", f"data.spacing={spacing}")
    edges = run.data.spacing if isinstance(run.data.spacing, tuple) else (run.data.spacing or 1.0,) * 3
    rng = np.random.default_rng(0)
    blocks = (draw_changes(run.train.augment, edges, [True], rng).block(run.data.patch) for _ in range(3000))
    assert 1 <= step_voxels(run) / max(map(prod, blocks)) < 4
    assert step_voxels(replace(run, train=replace(run.train, batch=3))) == 3 * step_voxels(run)


def test_too_large_for_anybody(run_config: Callable[..., RunConfig]) -> None:
    """The greatest that may be, and a sample more."""
    run = run_config("data.patch=[128,128,128]", "train.batch=128")
    assert step_voxels(run) == MOST_VOXELS
    outline(run)
    with pytest.raises(ValueError, match=f"no run may have more than {MOST_VOXELS}"):
        outline(replace(run, train=replace(run.train, batch=129)))
    wide = run_config(*SERIES, "model.preset=full", "model.bidirectional=true")
    wide = replace(wide, model=replace(wide.model, layers=16))
    with pytest.raises(ValueError, match=r"model\.preset=full: [0-9]+ parameters; no run may have more than"):
        outline(wide)
