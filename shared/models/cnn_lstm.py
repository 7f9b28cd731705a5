from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliofed.shared.models.conv_lstm import check_axes
from gliofed.shared.models.unet import fast_layout

FEATURES = 64
"""Numbers that describe one modality's volume, and the LSTM's size."""
MEAN, DEVIATION = 0.3, 0.25
"""About those of a central block that is scaled to 0..1. Measured: phantoms, .25 to .34 and .23 to .31."""


class CNNLSTM(nn.Module):
    """Grades a patient: one 3D CNN describes each modality's volume, an LSTM reads the descriptions in order.

    Input (B, M, D, H, W), MRI of M modalities, each scaled to 0..1 by its minimum and maximum, RAS, any size; and
    `present` (B, M), bool, False where a modality was not taken: its LSTM step is left out, so that nothing which its
    volume holds, NaN even, reaches the output or a gradient. Output (B, outputs), logits.

    All modalities share the CNN's weights; a learned vector a modality, added to the description, says which it is.
    `widths` names the channels of each block of the CNN, `encoder` is one of ENCODERS. `as_published` is the CNN
    as the original project describes it, with BatchNorm: not for differential privacy, and patients of a batch mix in
    training.
    Source: the original CNN-LSTM for grading; LSTM of Hochreiter & Schmidhuber 1997.
    """

    series: ClassVar[bool] = False
    task: ClassVar[str] = "grading"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        *,
        encoder: str = "cnn3",
        as_published: bool = False,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"model.encoder={encoder}: unknown; known are {', '.join(ENCODERS)}")
        self.in_channels = in_channels
        self.encoder = ENCODERS[encoder](widths, as_published=as_published)
        self.modality = nn.Parameter(torch.randn(in_channels, FEATURES))
        self.lstm = nn.LSTMCell(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, out_channels)
        # PyTorch's own is smaller. With std .01 cnn1 learned nothing in 240 steps of a toy task, with this in 160.
        nn.init.normal_(self.head.weight, std=FEATURES**-0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """See the class; without `present` all modalities are there."""
        check_axes("CNNLSTM", x, "BCDHW", self.in_channels)
        if present is not None:
            _check_present(x, present)
            # Not a product: NaN * 0 is NaN, in the output and in the gradient.
            x = torch.where(present[..., None, None, None], x, torch.zeros((), dtype=x.dtype, device=x.device))
        features = torch.unflatten(self.encoder(x.flatten(0, 1).unsqueeze(1)), 0, (-1, self.in_channels))
        h = c = features.new_zeros(features.shape[0], FEATURES)  # len() would fix the batch of an exported model
        for modality, description in enumerate((features + self.modality).unbind(1)):
            next_h, next_c = self.lstm(description, (h, c))
            if present is None:
                h, c = next_h, next_c
            else:
                taken = present[:, modality, None]
                h, c = torch.where(taken, next_h, h), torch.where(taken, next_c, c)
        logits: Tensor = self.head(h)
        # A sample without any modality, which is refused on a CPU, has no grade.
        return logits if present is None else torch.where(present.any(dim=1, keepdim=True), logits, torch.nan)


def _check_present(x: Tensor, present: Tensor) -> None:
    if present.shape != x.shape[:2] or present.dtype != torch.bool:
        raise ValueError(
            f"CNNLSTM: present is {present.dtype} of shape {tuple(present.shape)}; "
            f"expected torch.bool of shape {tuple(x.shape[:2])}: (B, M)"
        )
    if present.device.type != "cpu":
        return  # a GPU would have to wait until it knows
    empty = (~present.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"CNNLSTM: no modality is present in sample {empty} of the batch; each needs 1 or more")


class VolumeEncoder(nn.Module):
    """A CNN that describes volumes: (N, 1, D, H, W) of any size to (N, FEATURES).

    Each block is a 3x3x3 convolution, ReLU, with `squeeze` a SqueezeExcitation, and halves the sides. What is left is
    pooled to `grid` cells over (D, H, W), the mean plus the maximum of each, and mapped to FEATURES. Before and after
    that it is set to mean 0 and deviation 1: what all patients share would grow until the LSTM saturates.

    Unlike the published one, the first convolution has a stride of 2 in place of its pooling, and no block has a norm
    (measured: a training step takes 3.9 to 4.3 times less). A norm of one volume sets its channels to one mean and
    deviation, however bright and large the tumour is; BatchNorm keeps that apart, but mixes patients.
    """

    def __init__(
        self, widths: Sequence[int], *, grid: tuple[int, int, int], squeeze: bool = False, as_published: bool = False
    ) -> None:
        super().__init__()
        self.grid, self.as_published = grid, as_published
        self.blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            above = widths[level - 1] if level else 1
            stride = 1 if as_published or level else 2
            self.blocks.append(_block(above, width, stride, norm=as_published, squeeze=squeeze))
        self.describe = nn.Linear(widths[-1] * grid[0] * grid[1] * grid[2], FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = fast_layout(x if self.as_published else (x - MEAN) / DEVIATION)
        for level, block in enumerate(self.blocks):
            x = block(x)
            if level or self.as_published:
                x = F.max_pool3d(x, 2, ceil_mode=True)  # a side of 1 stays 1
        mean = F.adaptive_avg_pool3d(x, self.grid).flatten(1)
        if self.as_published:
            plain: Tensor = self.describe(mean)
            return plain
        maximum = F.adaptive_max_pool3d(x, self.grid).flatten(1)
        return _standard(self.describe(_standard(mean + maximum)))


def _standard(x: Tensor) -> Tensor:
    """Layer normalisation without weights, of (N, numbers)."""
    return F.layer_norm(x, x.shape[1:])


class SqueezeExcitation(nn.Module):
    """Weighs each channel by a number in 0..1 that is computed from the means of all: (N, C, D, H, W) to the same.

    The means, and what the sigmoid gets, are set to mean 0 and deviation 1 over the channels, but not `as_published`.
    Measured without, on phantoms: after 14 rounds of 25 steps the sigmoid got numbers up to 5,000, so that each weight
    was 0 or 1 and none learned any more; and a step on a CPU took 4 times as long, for what almost nothing is left of
    is a number that it is slow with.
    Source: Hu et al. 2018, arXiv:1709.01507.
    """

    def __init__(self, channels: int, reduction: int = 4, *, as_published: bool = False) -> None:
        super().__init__()
        self.standard: Callable[[Tensor], Tensor] = nn.Identity() if as_published else _standard
        self.reduce = nn.Linear(channels, channels // reduction)
        self.expand = nn.Linear(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        means = self.standard(x.mean(dim=(2, 3, 4)))
        weights = self.standard(self.expand(self.reduce(means).relu())).sigmoid()
        return x * weights[..., None, None, None].to(x.dtype)  # in bf16 layer_norm gives fp32, and maps would follow


def _block(in_channels: int, out_channels: int, stride: int, *, norm: bool, squeeze: bool) -> nn.Sequential:
    convolution = nn.Conv3d(in_channels, out_channels, 3, stride, padding=1, bias=not norm)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    layers: list[nn.Module] = [convolution]
    if norm:
        layers.append(nn.BatchNorm3d(out_channels))
    else:
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
    layers.append(nn.ReLU())
    if squeeze:
        layers.append(SqueezeExcitation(out_channels, as_published=norm))
    return nn.Sequential(*layers)


ENCODERS: dict[str, Callable[..., VolumeEncoder]] = {
    "cnn1": partial(VolumeEncoder, grid=(4, 4, 2)),
    "cnn2": partial(VolumeEncoder, grid=(1, 1, 1)),
    "cnn3": partial(VolumeEncoder, grid=(1, 1, 1), squeeze=True),
}
"""The three of the original CNN-LSTM: the first keeps where things are, the second pools over the whole volume, the
third also weighs channels. Axis W, the third, is the slice axis, the shortest."""
