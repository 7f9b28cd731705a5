import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from gliofed.shared.config import PRESETS, ModelConfig
from gliofed.shared.models import MODELS, build_model, reads_series, task_of
from gliofed.shared.models.clstm_unet3d import CLSTMUNet3D, with_difference
from gliofed.shared.models.unet import Encoder, Up, crop, pad


@pytest.fixture(params=["unet", "lstm_unet", "clstm_unet3d"])
def name(request):
    """Our models of volumes; cnn_lstm and MONAI's have tests of their own."""
    return request.param


def demo(name, in_channels=2, out_channels=3):
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name, preset="demo"), in_channels, out_channels).eval()


def image(name, *size, batch=1, channels=2, frames=2):
    torch.manual_seed(1)
    return torch.randn(batch, frames, channels, *size) if reads_series(name) else torch.randn(batch, channels, *size)


def test_parameter_counts():
    """Millions, at 4 modalities and 3 regions: a change of design shows here first."""
    millions = {
        "unet": (0.081, 0.333, 1.33, 5.30, 21.2),
        "lstm_unet": (0.0872, 0.359, 1.43, 5.71, 22.8),
        "clstm_unet3d": (0.302, 1.22, 4.87, 19.5, 77.8),
    }
    for name, expected in millions.items():
        for preset, million in zip(PRESETS, expected, strict=True):
            with torch.device("meta"):  # shapes alone: the full preset would take 311 MB
                model = build_model(ModelConfig(name=name, preset=preset), 4, 3)
            assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(million, rel=0.005)


@pytest.mark.parametrize("size", [(8, 12, 16), (7, 9, 10), (1, 2, 3)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_comes_back(name, size, batch):
    x = image(name, *size, batch=batch)
    shape = list(x.shape)
    shape[-4] = 3  # regions in place of channels
    logits = demo(name)(x)
    assert list(logits.shape) == shape
    assert logits.isfinite().all()


@pytest.mark.parametrize("axis", [-3, -2, -1])
def test_shifted_input_gives_shifted_output(name, axis):
    """Nothing inside may misalign space: padding, pooling, interpolation and cropping keep every voxel in place.

    GroupNorm is left out: its statistics are of the whole volume, borders too. Without it the equality is exact for
    what is further from a border than half the receptive field (about 30 voxels).
    """
    model = demo(name).double()
    if name == "lstm_unet":
        model.iterations = 2  # each one widens the receptive field
    for module in list(model.modules()):
        for key, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, key, nn.Identity())
    blob = image(name, 6, 6, 6).double()
    size = [6, 6, 6]
    size[axis] = 70  # not a multiple of 4: padding takes part
    x = blob.new_zeros(*blob.shape[:-3], *size)
    x.narrow(axis, 31, 6).copy_(blob)
    output = model(x)
    moved = model(x.roll(4, dims=axis))  # 4 = 2^(levels-1) voxels: one voxel of the bottleneck
    near, expected = moved.narrow(axis, 25, 20), output.roll(4, dims=axis).narrow(axis, 25, 20)
    assert_close(near, expected, rtol=0, atol=1e-12)
    assert expected.std() > 1e-3  # and there is something to see


def test_pad_and_crop_leave_every_voxel_in_place():
    x = torch.rand(1, 1, 5, 8, 7)
    expected = torch.zeros(1, 1, 8, 8, 8)
    expected[..., :5, :, :7] = x
    assert torch.equal(pad(x, 4), expected)
    assert torch.equal(crop(expected, x), x)


def test_pooling_starts_at_voxel_zero_whatever_the_size():
    """A larger volume pools the tissue that it shares with a smaller one the same way."""
    x = torch.rand(1, 1, 10, 10, 10)
    small = torch.nn.functional.max_pool3d(pad(x[..., :6], 4), 4)
    large = torch.nn.functional.max_pool3d(pad(x, 4), 4)
    assert torch.equal(small[..., :1], large[..., :1])


def test_is_causal_and_takes_any_number_of_frames():
    """What was reported of a visit must not change when a later visit comes."""
    model, x = demo("clstm_unet3d"), image("clstm_unet3d", 8, 8, 8, frames=3)
    assert_close(model(x)[:, :1], model(x[:, :1]))
    assert_close(model(x)[:, :2], model(x[:, :2]))
    assert not torch.allclose(model(x)[:, 1], model(x[:, 1:])[:, 0])  # a frame does remember those before


def test_difference_is_of_the_frame_before_and_keeps_the_model_causal():
    """The encoder sees a change at full resolution; the first frame, and frames that are alike, have none."""
    frames = torch.tensor([1.0, 4.0, 2.0]).view(1, 3, 1, 1, 1, 1)
    both, _ = with_difference(frames, None)
    assert both.squeeze().tolist() == [[1.0, 0.0], [4.0, 3.0], [2.0, -2.0]]
    torch.manual_seed(0)
    model, x = CLSTMUNet3D(2, 3, (8, 16), difference=True).eval(), image("clstm_unet3d", 8, 8, 8, frames=3)
    assert_close(model(x)[:, :2], model(x[:, :2]))
    assert_close(model(x.repeat(2, 1, 1, 1, 1, 1))[1:], model(x))
    still = x[:, :1].expand(-1, 3, -1, -1, -1, -1)
    features = model.encoder(torch.cat([still, torch.zeros_like(still)], dim=2).flatten(0, 1))
    assert all(torch.equal(each[0], each[2]) for each in features)


def test_an_image_that_one_of_two_visits_lacks_has_no_difference():
    """Its zeros would pass for the largest change there can be."""
    frames, present = torch.tensor([1.0, 0.0, 2.0, 5.0]).view(1, 4, 1, 1, 1, 1), torch.tensor([1, 0, 1, 1]).bool()
    both, there = with_difference(frames, present.view(1, 4, 1))
    assert both.squeeze().tolist() == [[1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [5.0, 3.0]]
    assert there.squeeze().tolist() == [[True, True], [False, False], [True, False], [True, True]]
    torch.manual_seed(0)
    model = CLSTMUNet3D(1, 3, (8, 16), difference=True, presence=True).eval()
    x = image("clstm_unet3d", 8, 8, 8, frames=4)[:, :, :1]
    assert model(x, present.view(1, 4, 1)).shape == (1, 4, 3, 8, 8, 8)


def test_frames_and_patients_do_not_mix():
    """B and T are folded for the encoder: patient 1 alone must get what it gets beside patient 0."""
    model, x = demo("clstm_unet3d"), image("clstm_unet3d", 8, 8, 8, batch=2, frames=3)
    assert_close(model(x)[1:], model(x[1:]))


def test_bidirectional_has_the_same_decoder():
    torch.manual_seed(0)
    one, both = (CLSTMUNet3D(2, 3, (8, 16), bidirectional=b) for b in (False, True))
    x = image("clstm_unet3d", 4, 4, 4)
    assert one(x).shape == both(x).shape
    assert {k: v.shape for k, v in one.decoder.state_dict().items()} == {
        k: v.shape for k, v in both.decoder.state_dict().items()
    }


def test_encoder_gives_the_finest_first():
    features = Encoder(1, (8, 16, 32))(torch.zeros(1, 1, 8, 12, 16))
    assert [tuple(f.shape) for f in features] == [(1, 8, 8, 12, 16), (1, 16, 4, 6, 8), (1, 32, 2, 3, 4)]


def test_gradient_reaches_every_parameter_and_no_operation_is_in_place(name):
    """What DP needs: `x` unchanged, and a copy that shares nothing trains alone."""
    model, x = demo(name).train(), image(name, 8, 8, 8)
    twin, before = copy.deepcopy(model), x.clone()
    model(x).square().mean().backward()
    assert torch.equal(x, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None for p in twin.parameters())
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    assert not list(model.buffers())  # nothing that travels but parameters


def test_weights_survive_a_file(name, tmp_path):
    """safetensors refuses tensors that share memory, so this also says that none does."""
    model, x = demo(name), image(name, 8, 8, 8)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(5)
    other = build_model(ModelConfig(name=name, preset="demo"), 2, 3).eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(other(x), model(x))


def test_same_seed_same_weights(name):
    first, second = demo(name).state_dict(), demo(name).state_dict()
    assert_close(first, second, rtol=0, atol=0)


def test_starts_at_a_low_probability(name):
    """Regions are rare: a model that sees nothing says one quarter."""
    biases = [value for key, value in demo(name).state_dict().items() if key.endswith("head.bias")]
    assert_close(*(bias.sigmoid() for bias in biases), torch.full((3,), 0.25))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clstm_unet3d", "unet", "lstm_unet"])
def test_export(name):
    """A model leaves for use elsewhere; exported at one batch size it takes another. Each takes seconds."""
    model, x = demo(name).eval(), image(name, 8, 8, 8, batch=2)
    dims = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (x,), dynamic_shapes=(dims,))
    other = image(name, 8, 8, 8, batch=3)
    assert_close(program.module()(other), model(other))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x[0], r"axes; expected"),
        (lambda x: x[..., :1, :, :, :], r"axis C \(number \d\) of the input is 1; this model takes 2"),
        (lambda x: x[..., :0], r"axis W \(number \d\) of the input is 0; must be 1 or more"),
    ],
)
def test_refuses_a_wrong_input(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        demo(name)(wrong(image(name, 8, 8, 8)))


def test_unknown_names_are_listed():
    known = "unet, lstm_unet, clstm_unet3d, cnn_lstm, monai_dynunet, monai_segresnet"
    with pytest.raises(ValueError, match=f"model.name=vnet: unknown; known are {known}"):
        build_model(ModelConfig(name="vnet", preset="demo"), 1, 1)
    with pytest.raises(ValueError, match=r"model.name=vnet"):
        reads_series("vnet")


def test_options_reach_the_model_that_has_them():
    series = build_model(ModelConfig(name="clstm_unet3d", preset="demo", layers=2, bidirectional=True), 1, 1)
    assert len(series.lstm.layers) == 4
    assert build_model(ModelConfig(name="lstm_unet", preset="demo", iterations=5), 1, 1).iterations == 5
    with pytest.raises(ValueError, match=r"model.iterations=5: unet has dropout, deep_supervision; leave it out"):
        build_model(ModelConfig(name="unet", preset="demo", iterations=5), 1, 1)
    with pytest.raises(ValueError, match=r"model.dropout=0.3: monai_dynunet has deep_supervision; leave it out"):
        build_model(ModelConfig(name="monai_dynunet", preset="demo", dropout=0.3), 1, 1)
    with pytest.raises(ValueError, match=r"model.dropout=0.3: monai_segresnet has no options; leave it out"):
        build_model(ModelConfig(name="monai_segresnet", preset="demo", dropout=0.3), 1, 1)
    with pytest.raises(ValueError, match=r"model.light=True: cnn_lstm has encoder, as_published; leave it out"):
        build_model(ModelConfig(name="cnn_lstm", preset="demo", light=True), 1, 1)


def supervised(name):
    """Of four levels: the finest, two coarser ones with guesses of their own, and the coarsest."""
    torch.manual_seed(0)
    return build_model(ModelConfig(name=name, preset="tiny", deep_supervision=True), 2, 3)


@pytest.mark.parametrize("name", ["unet", "monai_dynunet"])
def test_deep_supervision_adds_guesses_in_training_only(name):
    """Each reaches weights of its own; evaluation, and so prediction, is as without. A copy of a model that was trained
    can be made: a tensor with a history, as MONAI keeps, cannot be copied."""
    model, x = supervised(name).train(), image(name, 15, 16, 17, batch=2)
    guesses = model(x)
    assert guesses.shape == (2, 3, 3, 15, 16, 17)
    guesses.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert_close(copy.deepcopy(model).eval()(x), guesses[:, 0])


def test_coarse_guesses_are_of_their_levels():
    """In order, at full size and nowhere shifted: by hand, from the output of each level."""
    model, seen = supervised("unet"), []
    for level in model.decoder.levels:
        level.register_forward_hook(lambda _, __, output: seen.append(output))
    guesses = model.train()(image("unet", 16, 16, 16))
    assert [tuple(each.shape[1:]) for each in seen] == [(32, 4, 4, 4), (16, 8, 8, 8), (8, 16, 16, 16)]
    for place, (head, features) in enumerate(zip(model.decoder.coarse, (seen[1], seen[0]), strict=True), start=1):
        logits = torch.einsum("rc,bcdhw->brdhw", head.weight.flatten(1), features) + head.bias[:, None, None, None]
        pooled = torch.nn.functional.interpolate(logits, size=(16,) * 3, mode="trilinear")
        assert_close(guesses[:, place], pooled, rtol=1e-4, atol=1e-4)


def test_without_deep_supervision_nothing_changed():
    """Weights of the same names, from the same random numbers: earlier runs go on."""
    torch.manual_seed(0)
    plain = build_model(ModelConfig(name="unet", preset="tiny"), 2, 3)
    more = supervised("unet").state_dict()
    assert {name for name in more if "coarse" not in name} == plain.state_dict().keys()
    assert_close({name: more[name] for name in plain.state_dict()}, dict(plain.state_dict()), rtol=0, atol=0)


def test_which_models_read_series_and_which_task_each_is_for():
    assert [name for name in MODELS if reads_series(name)] == ["clstm_unet3d"]
    assert [name for name in MODELS if task_of(name) == "grading"] == ["cnn_lstm"]


def test_the_published_mock_setting_fits_the_full_preset():
    """5 volumes of 128 x 128 x 32: shapes alone, on no device, for it would take minutes and 20 GB."""
    with torch.device("meta"):
        model = build_model(ModelConfig(name="clstm_unet3d", preset="full"), 1, 1)
        assert model(torch.empty(2, 5, 1, 128, 128, 32)).shape == (2, 5, 1, 128, 128, 32)


def test_up_is_one_convolution_of_both_inputs_joined():
    """It adds two instead, which keep no copy of their inputs side by side."""
    torch.manual_seed(0)
    up, x, skip = Up(16, 8).double(), torch.randn(2, 16, 3, 4, 2).double(), torch.randn(2, 8, 6, 8, 4).double()
    wide = torch.nn.functional.interpolate(up.narrow(x), scale_factor=2, mode="trilinear")
    assert_close(up(x, skip), up.merge(torch.cat([skip, wide], dim=1)))
