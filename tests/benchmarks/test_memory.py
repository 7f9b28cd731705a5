"""The memory of a step, worked out on shapes, against what a pencil says, and the page that shows it."""

from functools import partial

import pytest
import torch
from torch import nn

from gliofed.shared.models.lstm_unet import LSTMUNet3D
from gliofed.shared.models.unet import GroupNorm, UNet3D
from tests.benchmarks.gpu_recipes import wide_norm
from tests.benchmarks.memory import EDGES, NAMES, PAGE, PRECISIONS, CudaAutocast, pass_bytes, step_bytes
from tests.benchmarks.subjects import Sizes, of_preset


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_small_network_needs_can_be_counted_by_hand(precision: str) -> None:
    """Most is there while the norm goes back: its input, the ReLU's output, and the gradients of both."""
    voxels, inputs, outputs, groups = 2 * 8**3, 4, 16, 2
    with torch.device("meta"):
        convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        norm = nn.GroupNorm(groups, outputs)
        image = torch.empty(2, inputs, 8, 8, 8)
    copies = 0 if precision == "fp32" else 2 * (27 * inputs * outputs + voxels * inputs)  # of weights and image
    means_and_deviations, own_gradients, loss_and_its_gradient = 2 * 2 * groups, 2 * outputs, 2
    numbers = 4 * voxels * outputs + means_and_deviations + own_gradients + loss_and_its_gradient
    net = nn.Sequential(convolution, norm, nn.ReLU())
    assert pass_bytes(net, image, torch.Tensor.sum, PRECISIONS[precision]()) == copies + 4 * numbers


@pytest.mark.parametrize("kind", [UNet3D, LSTMUNet3D])
def test_maps_in_the_precision_of_convolutions_change_no_output(kind: type[nn.Module]) -> None:
    """Autocast on a GPU has them in fp32 from a norm to the next convolution, which rounds them to bf16 anyway."""
    torch.manual_seed(0)
    model, image = kind(2, 3, (8, 16)), torch.randn(2, 2, 8, 8, 8)
    found = []
    for forward in (GroupNorm.forward, wide_norm):
        for module in model.modules():
            if isinstance(module, GroupNorm):
                module.forward = partial(forward, module)  # type: ignore[method-assign]
        model.zero_grad()
        with CudaAutocast():
            logits = model(image)
        logits.float().square().mean().backward()
        gradient = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        found.append((logits, gradient))
    (ours, gradient), (autocasts, other) = found
    assert torch.equal(ours, autocasts)
    assert (gradient - other).norm() < 0.01 * other.norm()  # where two gradients of a map meet, bf16 rounds their sum


@pytest.mark.slow
def test_the_page_says_what_comes_out() -> None:
    """One preset and patch; `make bench ARGS=memory` writes them all."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line]
    rows, (_, edge, _) = {cells[0]: cells[3:5] for cells in lines}, EDGES
    for name in NAMES:
        [subject] = [each for each in of_preset("small", Sizes(edge, edge, 2)) if each.name == name]
        found = [f"{step_bytes(subject, precision) / 2**30:.2g}" for precision in ("bf16", "fp32")]
        assert rows[f"{name} small"] == found
