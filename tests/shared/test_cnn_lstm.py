import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from gliofed.shared.config import PRESETS
from gliofed.shared.models.cnn_lstm import CNNLSTM, ENCODERS, SqueezeExcitation


@pytest.fixture(params=ENCODERS)
def encoder(request):
    return request.param


def demo(encoder="cnn3", modalities=4, **options):
    torch.manual_seed(0)
    model = CNNLSTM(modalities, 2, (8, 16, 32), encoder=encoder, **options)
    nn.init.normal_(model.head.weight)  # as after some training: the new head's .01 would hide differences
    return model


def image(*size, batch=2, modalities=4):
    torch.manual_seed(1)
    return torch.rand(batch, modalities, *size)


PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])


def shorter_sequence(model, x, present):
    """Each patient alone: the modalities that it has, one by one through the CNN, then through torch's own LSTM."""
    lstm = nn.LSTM(64, 64).to(x.dtype)
    lstm.load_state_dict({f"{name}_l0": value for name, value in model.lstm.state_dict().items()})
    logits = []
    for volumes, taken in zip(x, present, strict=True):
        which = taken.nonzero().flatten().tolist()
        sequence = [model.encoder(volumes[m][None, None])[0] + model.modality[m] for m in which]
        outputs, _ = lstm(torch.stack(sequence))
        logits.append(model.head(outputs[-1]))
    return torch.stack(logits)


def test_a_missing_modality_is_a_shorter_sequence(encoder):
    model, x = demo(encoder).double(), image(16, 12, 8, batch=3).double()
    assert_close(model(x, PRESENT), shorter_sequence(model, x, PRESENT))
    assert_close(model(x), shorter_sequence(model, x, torch.ones_like(PRESENT)))
    assert torch.equal(model(x), model(x, torch.ones_like(PRESENT)))


@pytest.mark.parametrize("as_published", [False, True])
def test_what_a_missing_volume_holds_leaks_nowhere(encoder, as_published):
    """Zero-filling would be seen by the LSTM, and NaN * 0 is NaN, also in a gradient."""
    model, x = demo(encoder, as_published=as_published), image(8, 8, 8, batch=3)
    results = []
    for filling in (0.0, 1e6, float("nan")):
        held = x.masked_fill(~PRESENT[..., None, None, None], filling).requires_grad_()
        output = model(held, PRESENT)
        results.append((output, torch.autograd.grad(output.square().sum(), [held, *model.parameters()])))
    assert_close(results[1], results[0], rtol=0, atol=0)
    assert_close(results[2], results[0], rtol=0, atol=0)
    image_gradient = results[2][1][0].flatten(2).abs().sum(-1)
    assert torch.equal(image_gradient > 0, PRESENT)


def test_a_shorter_sequence_says_which_modality_it_is():
    """The same volume as T1 or as FLAIR means something else."""
    model, volume = demo(), image(8, 8, 8, batch=1, modalities=1).expand(4, 4, -1, -1, -1)
    outputs = model(volume, torch.eye(4, dtype=torch.bool))
    assert all((outputs[m] - outputs[n]).abs().max() > 1e-2 for m in range(4) for n in range(m))


@pytest.mark.parametrize("size", [(32, 32, 16), (7, 9, 10), (5, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("as_published", [False, True])
def test_any_size_and_batch(encoder, size, as_published):
    """A patient alone too: BatchNorm sees its M volumes as a batch."""
    model = demo(encoder, as_published=as_published)
    for batch in (1, 3):
        for training in (True, False):
            logits = model.train(training)(image(*size, batch=batch))
            assert logits.shape == (batch, 2)
            assert logits.isfinite().all()


def test_pools_blocks_and_stride():
    """Sides 32, 32, 16 are halved by each of three blocks; the published stem halves by its pooling."""
    for as_published in (False, True):
        model, sizes = demo("cnn1", as_published=as_published), []
        for block in model.encoder.blocks:
            block.register_forward_hook(lambda _, __, output, s=sizes: s.append(tuple(output.shape[1:])))
        model(image(32, 32, 16, batch=1))
        full = (8, 32, 32, 16) if as_published else (8, 16, 16, 8)
        assert sizes == [full, (16, 16, 16, 8), (32, 8, 8, 4)]


def test_pooled_cells_are_mean_and_maximum():
    """cnn1 keeps 4x4x2 cells; the slice axis, the shortest, is the third. Oracle: a loop over the cells."""
    model = demo("cnn1").encoder
    seen = []
    model.describe.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.blocks = nn.ModuleList()
    x = torch.randn(1, 32, 8, 4, 6)
    model(x)
    cells = [
        cell.mean(dim=(1, 2, 3)) + cell.amax(dim=(1, 2, 3))
        for slab in x[0].chunk(4, dim=1)
        for row in slab.chunk(4, dim=2)
        for cell in row.chunk(2, dim=3)
    ]
    pooled = torch.stack(cells, dim=1).flatten()
    assert_close(seen[0], ((pooled - pooled.mean()) / pooled.std(correction=0))[None], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("as_published", [False, True])
def test_squeeze_excitation_equals_a_loop(as_published: bool):
    torch.manual_seed(0)
    layer, x = SqueezeExcitation(8, as_published=as_published), 10 * torch.randn(2, 8, 3, 4, 5)
    expected = torch.empty_like(x)

    def standard(numbers: Tensor) -> Tensor:
        return numbers if as_published else (numbers - numbers.mean()) / numbers.std(correction=0)

    for b in range(2):
        squeezed = standard(torch.stack([x[b, c].mean() for c in range(8)]))
        hidden = (layer.reduce.weight @ squeezed + layer.reduce.bias).clamp(min=0)
        assert hidden.shape == (2,)  # reduction 4
        weights = 1 / (1 + torch.exp(-standard(layer.expand.weight @ hidden + layer.expand.bias)))
        for c in range(8):
            expected[b, c] = x[b, c] * weights[c]
    assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_channels_are_weighed_and_not_switched():
    """However far training takes the layer: Muon's steps all have one length, and a sigmoid of 5,000 learns no more."""
    torch.manual_seed(0)
    layer = SqueezeExcitation(8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= 1000
    x = 100 * torch.rand(2, 8, 3, 4, 5) + 1
    weights = layer(x) / x
    assert weights.min() > 0 and weights.max() < 1
    weights.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_only_cnn3_weighs_channels():
    for encoder in ENCODERS:
        layers = [type(layer) for block in demo(encoder).encoder.blocks for layer in block]
        assert layers.count(SqueezeExcitation) == (3 if encoder == "cnn3" else 0)


def test_parameter_counts():
    """Millions, at 4 modalities and 1 output, of the published widths."""
    published = {
        "cnn1": (None, 0.238, 0.587, 1.72, 5.73),
        "cnn2": (None, 0.111, 0.333, 1.21, 4.72),
        "cnn3": (0.054, 0.113, 0.344, 1.26, 4.89),
    }
    for encoder, millions in published.items():
        for widths, million in zip(PRESETS.values(), millions, strict=True):
            with torch.device("meta"):
                model = CNNLSTM(4, 1, widths, encoder=encoder)
            if million is not None:
                assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(million, rel=0.01)


@pytest.mark.parametrize("as_published", [False, True])
def test_gradient_reaches_every_parameter_and_no_operation_is_in_place(encoder, as_published):
    model, x = demo(encoder, as_published=as_published), image(16, 16, 8)
    twin, before = copy.deepcopy(model), x.clone()
    model(x).square().mean().backward()
    assert torch.equal(x, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None for p in twin.parameters())
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    assert bool(list(model.buffers())) == as_published  # BatchNorm's running statistics


def test_patients_do_not_mix(encoder):
    """B and M are folded for the CNN. BatchNorm mixes them in training, not after."""
    x = image(8, 8, 8, batch=3)
    for model in (demo(encoder), demo(encoder, as_published=True).eval()):
        assert_close(model(x)[1:2], model(x[1:2]))


def test_starts_undecided(encoder):
    torch.manual_seed(0)
    probability = CNNLSTM(4, 2, (8, 16, 32), encoder=encoder)(image(8, 8, 8)).sigmoid()
    assert_close(probability, torch.full((2, 2), 0.5), rtol=0, atol=0.15)


def test_weights_survive_a_file(encoder, tmp_path):
    model, x = demo(encoder), image(8, 8, 8)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = CNNLSTM(4, 2, (8, 16, 32), encoder=encoder)
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(other(x), model(x))


@pytest.mark.slow  # seconds each; test_models.py exports the default model
@pytest.mark.parametrize("encoder", ["cnn1", "cnn3"])  # cnn2: cnn3 less a layer
def test_export(encoder):
    model = demo(encoder).eval()
    program = torch.export.export(model, (image(16, 16, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    other = image(16, 16, 8, batch=3)
    assert_close(program.module()(other), model(other))


def test_refuses_an_unknown_encoder():
    with pytest.raises(ValueError, match=r"model.encoder=vgg: unknown; known are cnn1, cnn2, cnn3"):
        demo("vgg")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 8, 8, 8), r"CNNLSTM: .* has 4 axes; expected 5"),
        ((1, 3, 8, 8, 8), r"axis C \(number 1\) of the input is 3; this model takes 4"),
        ((1, 4, 8, 0, 8), r"axis H \(number 3\) of the input is 0; must be 1 or more"),
    ],
)
def test_refuses_a_wrong_input(shape, message):
    with pytest.raises(ValueError, match=message):
        demo()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (torch.tensor([[True] * 4, [False] * 4]), r"no modality is present in sample \[1\] of the batch"),
        (torch.ones(2, 3, dtype=torch.bool), r"present is torch.bool of shape \(2, 3\); .* shape \(2, 4\): \(B, M\)"),
        (torch.ones(2, 4), r"present is torch.float32 of shape \(2, 4\); expected torch.bool"),
    ],
)
def test_refuses_a_wrong_mask(present, message):
    with pytest.raises(ValueError, match=message):
        demo()(image(8, 8, 8), present)


def test_never_waits_for_a_device():
    """Meta tensors have no values: whatever a GPU would have to be waited for, raises there."""
    model, present = demo().to("meta"), torch.empty(2, 4, dtype=torch.bool, device="meta")
    model(image(8, 8, 8).to("meta"), present).sum().backward()
    with pytest.raises(RuntimeError, match="meta"):
        present.any(dim=1).nonzero()  # the old way, in front of every step


def test_a_patient_without_modalities_is_refused_or_has_no_grade(monkeypatch):
    """On a GPU, which nobody waits for; here the check is switched off, as it is there. The others keep theirs."""
    model, x, present = demo(), image(8, 8, 8, batch=3), PRESENT & torch.tensor([[True], [False], [True]])
    with pytest.raises(ValueError, match=r"sample \[1\]"):
        model(x, present)
    monkeypatch.setattr("gliofed.shared.models.cnn_lstm._check_present", lambda x, present: None)
    logits = model(x, present)
    assert torch.equal(logits.isnan().any(dim=1), ~present.any(dim=1))
    assert torch.equal(logits[::2], model(x, PRESENT)[::2])
