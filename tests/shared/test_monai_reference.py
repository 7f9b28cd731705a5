import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from gliofed.shared.models.monai_reference import DynUNetReference, SegResNetReference


@pytest.fixture(params=[DynUNetReference, SegResNetReference])
def reference(request):
    torch.manual_seed(0)
    return request.param(2, 3, (8, 16, 32))


def image(*size, batch=1):
    torch.manual_seed(1)
    return torch.randn(batch, 2, *size)


@pytest.mark.parametrize("size", [(8, 12, 16), (7, 9, 10), (1, 2, 3)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_comes_back(reference, size, batch):
    x = image(*size, batch=batch)
    for mode in (True, False):
        logits = reference.train(mode)(x)
        assert logits.shape == (batch, 3, *size)
        assert logits.isfinite().all()


def test_padding_is_cropped_from_the_end(reference):
    """The same zeros, put there by hand, give the same mask in the same place."""
    x = image(7, 8, 8)
    padded = torch.cat([x, torch.zeros(1, 2, 1, 8, 8)], dim=2)
    assert torch.equal(reference(x), reference(padded)[:, :, :7])


def test_has_the_levels_of_the_widths():
    """Equal width is what makes them references: channels of the coarsest level, sides divided by 2 a level."""
    for widths in ((8, 16, 32), (8, 16, 32, 64)):
        x, step = image(16, 16, 16), 2 ** (len(widths) - 1)
        for kind in (DynUNetReference, SegResNetReference):
            shapes, model = set(), kind(2, 3, widths)
            for module in model.modules():
                if isinstance(module, torch.nn.Conv3d):
                    module.register_forward_hook(lambda _, __, output, s=shapes: s.add(tuple(output.shape[1:])))
            model(x)
            assert max(shapes, key=lambda shape: shape[0]) == (widths[-1], *[16 // step] * 3)


def test_copies_share_nothing_and_weights_survive_a_file(reference, tmp_path):
    """safetensors refuses tensors that share memory: MONAI's DynUNet registers each layer twice."""
    x, twin = image(8, 8, 8), copy.deepcopy(reference)
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.5)
    assert not torch.equal(twin(x), reference(x))
    reference.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(twin(x), reference(x))


def test_gradient_reaches_every_parameter(reference):
    x = image(8, 8, 8)
    before = x.clone()
    reference(x).square().mean().backward()
    assert torch.equal(x, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in reference.parameters())


@pytest.mark.slow
def test_export(reference):
    model = reference.eval()
    program = torch.export.export(model, (image(8, 8, 8, batch=2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    other = image(8, 8, 8, batch=3)
    assert_close(program.module()(other), model(other))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8, 8, 8), r"has 4 axes; expected 5"),
        ((1, 1, 8, 8, 8), r"axis C \(number 1\) of the input is 1; this model takes 2"),
    ],
)
def test_refuses_a_wrong_input(reference, shape, message):
    with pytest.raises(ValueError, match=message):
        reference(torch.zeros(shape))
