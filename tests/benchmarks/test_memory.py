"""The memory of a step, worked out on shapes, against what a pencil says, and the page that shows it."""

import pytest
import torch
from torch import nn

from tests.benchmarks.memory import EDGES, NAMES, PAGE, PRECISIONS, pass_bytes, step_bytes
from tests.benchmarks.subjects import Sizes, of_preset


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_small_network_needs_can_be_counted_by_hand(precision: str) -> None:
    """Most is there while the norm goes back: its input, the ReLU's output, and the gradients of both."""
    voxels, inputs, outputs, groups = 2 * 8**3, 4, 16, 2
    size = 2 if precision == "bf16, norms too" else 4
    with torch.device("meta"):
        convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        norm = nn.GroupNorm(groups, outputs, dtype=torch.bfloat16 if size == 2 else None)
        image = torch.empty(2, inputs, 8, 8, 8)
    copies = 0 if precision == "fp32" else 2 * (27 * inputs * outputs + voxels * inputs)  # of weights and image
    means_and_deviations, own_gradients, loss_and_its_gradient = 2 * 2 * groups, 2 * outputs, 2
    numbers = 4 * voxels * outputs + means_and_deviations + own_gradients + loss_and_its_gradient
    net = nn.Sequential(convolution, norm, nn.ReLU())
    assert pass_bytes(net, image, torch.Tensor.sum, PRECISIONS[precision]()) == copies + size * numbers


def test_the_page_says_what_comes_out() -> None:
    """One preset and patch; `make bench ARGS=memory` writes them all."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines() if "|" in line]
    rows, (_, edge, _) = {cells[0]: cells[3:5] for cells in lines}, EDGES
    for name in NAMES:
        [subject] = [each for each in of_preset("small", Sizes(edge, edge, 2)) if each.name == name]
        found = [f"{step_bytes(subject, precision) / 2**30:.2g}" for precision in ("bf16", "fp32")]
        assert rows[f"{name} small"] == found
