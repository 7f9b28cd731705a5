"""What ours is measured against must be what was published, and what makes ours fast may not change a value."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from gliofed.shared.models import unet
from gliofed.shared.models.clstm_unet3d import CLSTMUNet3D
from gliofed.shared.models.conv_lstm import ConvLSTM
from tests.benchmarks.published_design import PublishedDesign, SlowConvLSTM


@pytest.mark.slow
def test_is_as_large_as_the_published_one():
    """80.3 M parameters; T=5 frames of 16x32x32 count 724 GFLOP a step, of which 241 forward; counted by hand."""
    with torch.device("meta"):  # shapes alone: it would take seconds
        model, x = PublishedDesign(1, 1), torch.zeros(1, 5, 1, 16, 32, 32)
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters / 1e6 == pytest.approx(80.3, abs=0.05)
    assert sum(p.numel() for p in model.lstm.parameters()) / parameters == pytest.approx(0.71, abs=0.005)
    with FlopCounterMode(display=False) as counter:
        logits = model(x)
        forward = counter.get_total_flops()
        superfluous = sum(counter.get_flop_counts()["PublishedDesign.superfluous_up"].values())
        logits.sum().backward()
    assert logits.shape == x.shape
    assert forward / 1e9 == pytest.approx(241, abs=1)
    assert counter.get_total_flops() / 1e9 == pytest.approx(724, abs=1)
    assert superfluous / forward == pytest.approx(0.225, abs=0.001)


def test_the_slow_cell_is_ours():
    """The benchmark compares two ways to the same states: one weight for input and state together is both of ours."""
    torch.manual_seed(0)
    ours, slow, x = ConvLSTM(2, 3), SlowConvLSTM(2, 3), torch.randn(2, 3, 2, 4, 5, 6)
    [layer] = ours.layers
    weight = torch.cat([layer.input_gates.weight, layer.hidden_gates.weight], dim=1)
    slow.load_state_dict({"gates.weight": weight.detach(), "gates.bias": layer.input_gates.bias.detach()})
    assert_close(slow(x), ours(x)[0])


def test_layout_in_memory_changes_no_value(monkeypatch):
    """Channels last, and a product in place of a convolution, give what PyTorch's own layers give; gradients too."""
    torch.manual_seed(0)
    model, x = CLSTMUNet3D(2, 3, (8, 16)).double(), torch.randn(2, 2, 2, 5, 6, 7, dtype=torch.double)
    fast = run(model, x)
    monkeypatch.setattr(unet, "fast_layout", lambda x: x)
    monkeypatch.setattr(unet.GroupNorm, "forward", nn.GroupNorm.forward)
    monkeypatch.setattr(unet.Pointwise, "forward", nn.Conv3d.forward)
    plain = run(model, x)
    assert_close(fast, plain)


def test_group_norm_of_a_large_map_is_exact():
    """PyTorch's own, with channels last, is off by 6e-5 here and by 3e-3 at 128^3."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 48, 48, 48)
    norm = unet.GroupNorm(8, 16)
    assert_close(norm(unet.fast_layout(x)), nn.functional.group_norm(x.double(), 8).float(), rtol=0, atol=5e-6)


def run(model, x):
    logits = model(x)
    return logits, torch.autograd.grad(logits.square().sum(), list(model.parameters()))
