"""data.missing=mask: a case that lacks an image is prepared and drawn, and the model knows which it has."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_patches import CPU, only
from torch.testing import assert_close

from gliofed.client.round.training import train_one_round
from gliofed.shared.config import DataConfig, ModelConfig, TrainConfig
from gliofed.shared.data.augment import draw_changes
from gliofed.shared.data.cache import open_entry
from gliofed.shared.data.cases import Case
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.prepare import prepare
from gliofed.shared.data.samples import whole
from gliofed.shared.data.volume import DataError
from gliofed.shared.models import MODELS, build_model
from gliofed.shared.tasks import TASKS
from gliofed.simulation.phantom import PhantomConfig, write_phantoms

REFUSE = DataConfig(
    modalities=("flair", "t1", "t1ce", "t2"),
    regions=("et", "tc", "wt"),
    window=2,
    spacing=None,
    patch=(8, 8, 8),
    validation=0.0,
    split_seed=0,
)
MASK = replace(REFUSE, missing="mask")
TRAIN = TrainConfig(
    steps=2,
    epochs=None,
    batch=4,
    lr=0.01,
    weight_decay=0.01,
    clip=5.0,
    foreground=0.5,
    class_weights=None,
    precision="fp32",
)
CHANGED = replace(TRAIN, augment=only(flip=0.5, rotation=20, noise=0.2, bias=0.3, gamma=0.3, dropout=0.3))
ALL, NO_FLAIR = [True] * 4, [False, True, True, True]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Two visits of one patient, at 8 mm."""
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(PhantomConfig(patients=1, visits=2, resolution=8), root, 0)
    return find_cases(root, "brats2023")


def without(case: Case, *modalities: str) -> Case:
    return replace(case, images={name: scan for name, scan in case.images.items() if name not in modalities})


def patient(cases: list[Case], data: DataConfig, cache: Path) -> Patient:
    return Patient("P", tuple(case.visit for case in cases), (prepare(cases, data, cache),))


def drawn(one: Patient, data: DataConfig, train: TrainConfig = TRAIN, series: bool = False):
    return list(batches(Source([one], data, train, "series" if series else "visits", (0,)), 2, CPU))


def model(missing: str, name: str = "unet") -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model(ModelConfig(name=name, preset="demo"), 4, 3, missing)


def test_of_complete_cases_all_is_as_before(cases: list[Case], tmp_path: Path) -> None:
    """The same entry, batches, first weights and steps: to allow what never occurs costs nothing."""
    one, other = (patient(cases, data, tmp_path) for data in (REFUSE, MASK))
    assert one == other
    for train in (TRAIN, replace(CHANGED, augment=replace(CHANGED.augment, dropout=0))):
        for before, now in zip(drawn(one, REFUSE, train), drawn(one, MASK, train), strict=True):
            assert torch.equal(before.image, now.image) and torch.equal(before.target, now.target)
            assert before.present is None and now.present is not None and now.present.all()
    refuse, mask = model("refuse"), model("mask")
    for each, data in ((refuse, REFUSE), (mask, MASK)):
        train_one_round(each, drawn(one, data), TASKS["segmentation"], TRAIN, 2, CPU)
    trained = mask.state_dict()
    assert not trained.pop("encoder.presence.weight").any()
    assert_close(trained, refuse.state_dict(), rtol=0, atol=0)


def test_an_image_that_is_missing_is_zero_and_the_others_are_as_they_were(cases: list[Case], tmp_path: Path) -> None:
    """Nothing else is computed from it: z-scores are each image's own."""
    complete = open_entry(prepare(cases, MASK, tmp_path))
    entry = open_entry(prepare([cases[0], without(cases[1], "flair")], MASK, tmp_path))
    assert entry.present.tolist() == [ALL, NO_FLAIR]
    assert not entry.image[1, 0].any() and complete.image[1, 0].any()
    np.testing.assert_array_equal(entry.image[entry.present], complete.image[entry.present])
    np.testing.assert_array_equal(entry.mask, complete.mask)


def test_entries_of_other_missing_images_are_others(cases: list[Case], tmp_path: Path) -> None:
    """Files are told by name, size and time; which channel each is for must be told as well."""
    entries = {prepare([without(cases[0], name)], MASK, tmp_path) for name in ("t1", "t2")}
    entries |= {prepare([cases[0]], replace(MASK, modalities=("flair", "t1ce", "t2")), tmp_path)}
    assert len(entries) == 3


def test_refused_without_the_setting_and_with_no_image_at_all(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no flair; has t1") as refused:
        prepare([without(cases[0], "flair")], REFUSE, tmp_path)
    with pytest.raises(DataError, match="none of flair, t1, t1ce, t2; has no image") as nothing:
        prepare([without(cases[0], *REFUSE.modalities)], MASK, tmp_path)
    assert {refused.value.code, nothing.value.code} == {"missing_modality"}


@pytest.mark.parametrize("series", [False, True])
def test_a_batch_says_what_there_is_after_every_change(cases: list[Case], tmp_path: Path, series: bool) -> None:
    """Noise, bias and turned patches leave a missing image zero, whether the case lacks it or it was dropped."""
    one = patient([cases[0], without(cases[1], "flair")], MASK, tmp_path)
    seen = set()
    for batch in drawn(one, MASK, CHANGED, series):
        assert batch.present is not None and batch.present.shape == batch.image.shape[:-3]
        assert torch.equal(batch.image.abs().amax((-3, -2, -1)) > 0, batch.present)
        assert batch.present.any(-1).all()
        seen |= {tuple(row) for row in batch.present.reshape(-1, 4).tolist()}
    assert len(seen) > 3
    told = [batch.present for batch in whole(one, MASK, "series" if series else "visits")]
    assert [each.tolist() for each in told if each is not None] == (
        [[[ALL, NO_FLAIR]]] if series else [[ALL], [NO_FLAIR]]
    )
    assert all(batch.present is None for batch in whole(one, REFUSE, "visits"))


def test_of_what_visits_have_one_stays_at_each() -> None:
    """Visits share what is dropped. One that has T1 alone keeps it, whatever the other has."""
    present, rng = np.array([[True, True, True], [True, False, False]]), np.random.default_rng(0)
    seen = {draw_changes(only(dropout=0.9), (1.0,) * 3, present, rng).dropped for _ in range(200)}
    assert seen == {(), (1,), (2,), (1, 2)}


@pytest.mark.parametrize("series", [False, True])
def test_only_images_that_may_be_dropped_are(cases: list[Case], tmp_path: Path, series: bool) -> None:
    """Of three images that may be, in a patient who lacks one of them, in the order of `data.modalities`."""
    one = patient([without(case, "t1ce") for case in cases], MASK, tmp_path)
    train = replace(TRAIN, augment=only(dropout=0.5, dropout_of=("t2", "flair", "t1ce")), batch=20)
    seen = {tuple(row) for batch in drawn(one, MASK, train, series) for row in batch.present.reshape(-1, 4).tolist()}
    assert seen == {(flair, True, False, t2) for flair in (False, True) for t2 in (False, True)}


NAMES = ["unet", "lstm_unet", "clstm_unet3d"]


def inputs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two samples; of the second, in its last visit, FLAIR is missing."""
    frames = (2,) if MODELS[name].series else ()
    torch.manual_seed(1)
    present = torch.ones(2, *frames, 4, dtype=torch.bool)
    present[(1, *[-1] * len(frames), 0)] = False
    return torch.randn(2, *frames, 4, 8, 8, 8), present


@pytest.mark.parametrize("name", NAMES)
def test_what_a_missing_channel_holds_reaches_nothing(name: str) -> None:
    """Not even NaN, and no gradient."""
    network, (x, present) = model("mask", name).eval(), inputs(name)
    x.requires_grad_(True)
    said = network(x, present)
    said.sum().backward()
    assert x.grad is not None and torch.equal(x.grad.abs().amax((-3, -2, -1)) > 0, present)
    with torch.no_grad():
        x[~present] = torch.nan
        assert torch.equal(network(x, present), said)


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_model_tells_a_missing_image_from_one_that_is_zero(name: str) -> None:
    """A window of background is zero in every image, so zero is not to be missing; complete samples teach nothing."""
    network, (x, present) = model("mask", name), inputs(name)
    x = torch.where(present[..., None, None, None], x, 0)
    layer = next(each for key, each in network.named_parameters() if key.endswith("presence.weight"))
    (gone,) = torch.autograd.grad(network(x[1:], present[1:]).square().sum(), layer)
    assert (gone[:, 0].abs() > 0).sum() > 8 and not gone[:, 1:].any()
    (full,) = torch.autograd.grad(network(x[:1], present[:1]).square().sum(), layer)
    assert not full.any()
    network.eval()
    assert torch.equal(network(x, present), network(x)), "before training"
    with torch.no_grad():
        layer.sub_(gone / gone.norm())
        assert not torch.equal(network(x, present)[1], network(x)[1])
        assert torch.equal(network(x, present)[0], network(x)[0])


def test_every_window_hears_of_the_whole_visit() -> None:
    """Also one that is empty, and where windows share a pass."""

    def says(x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        assert present.shape == x.shape[:-3]
        value = (present * 2.0 ** torch.arange(4)).sum(-1)
        return value[..., None, None, None, None].expand(*x.shape[:-4], 3, *x.shape[-3:]).clone()

    task, frames = TASKS["segmentation"], torch.tensor([[ALL, NO_FLAIR]])
    volume, series = torch.zeros(1, 4, 20, 8, 12), torch.zeros(1, 2, 4, 20, 8, 12)
    assert_close(task.logits(says, (volume, frames[:, 1]), MASK), torch.full((1, 3, 20, 8, 12), 14.0))
    expected = torch.tensor([15.0, 14.0]).view(1, 2, 1, 1, 1, 1).expand(1, 2, 3, 20, 8, 12)
    assert_close(task.logits(says, (series, frames), MASK), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_export(name: str) -> None:
    """With what it is told, at any size of batch, as the other models."""
    network, dims = model("mask", name).eval(), {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, inputs(name), dynamic_shapes=(dims, dims))
    x, present = (torch.cat([part, part[:1]]) for part in inputs(name))
    assert_close(program.module()(x, present), network(x, present))


def test_a_model_that_cannot_be_told_is_refused() -> None:
    assert build_model(ModelConfig(name="cnn_lstm", preset="demo"), 4, 1, "mask")
    with pytest.raises(ValueError, match=r"monai_dynunet cannot be told .* use model=unet or"):
        build_model(ModelConfig(name="monai_dynunet", preset="demo"), 4, 3, "mask")
    with pytest.raises(ValueError, match=r"present is torch.bool of shape \(2, 3\); .*\(2, 4\), one for each image"):
        model("mask")(torch.zeros(2, 4, 8, 8, 8), torch.ones(2, 3, dtype=torch.bool))
