from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliofed.shared.models.conv_lstm import check_axes
from gliofed.shared.models.dropout import ChannelDropout
from gliofed.shared.models.presence import Presence, only_present

PRIOR = 0.25
"""Probability of every region before training, between a tumour's share of a brain and torch's one half.

Measured: four sites of mock volumes, CLSTM demo, AdamW 1e-2, 8 steps a round. With this and the He weights Dice passes
.85 after round 1, with torch's own after round 4 or 5; a prior of .1 needs 1 to 3: it may first learn to find nothing.
"""


def fast_layout(x: Tensor) -> Tensor:
    """Return `x` (B, C, D, H, W) itself; on a CPU with its channels last in memory.

    oneDNN then finds the weight gradient of a convolution in half the time, and that is half of a step (AVX2: a step
    takes .74 to .88 of the time). Weights stay as they are, for they travel and are saved. On a GPU nothing changes:
    PyTorch's group norm there would copy every map back.
    """
    return x.to(memory_format=torch.channels_last_3d) if x.device.type == "cpu" else x


EXACT = 2**16
"""Values of a group up to which PyTorch's group norm with channels last is good to 2e-5."""


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm, (B, C, D, H, W) to the same in `fast_layout`, in plain layout where that is better.

    With channels last PyTorch (2.13) adds up the values of a group in one float: at 128^3 its output is off by 3e-3, in
    plain layout by 6e-7. Where a group is one channel its backward pass is also 3 times slower. Two copies cost less
    than either, but more time and memory than PyTorch's own elsewhere.

    The output has the input's precision. Autocast on a GPU makes fp32 of it, and all maps up to the next convolution
    would be kept so, beside the copy that this computes with; what it computes is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.num_groups == self.num_channels or x.shape[1:].numel() > EXACT * self.num_groups:
            x = x.contiguous()
        return fast_layout(super().forward(x).to(x.dtype))


class Pointwise(nn.Conv3d):
    """1x1x1 convolution: (B, in, D, H, W) to (B, out, D, H, W).

    On a CPU as a product of matrices: with channels last it copies nothing, where a convolution on one thread would
    leave that layout, and with it all that `fast_layout` gains.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if x.device.type != "cpu":
            return super().forward(x)
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class DoubleConv(nn.Sequential):
    """3x3x3 convolution, GroupNorm, ReLU, twice: (B, in, D, H, W) to (B, out, D, H, W).

    Initial weights: He et al. 2015, arXiv:1502.01852. `dropout` of channels is between the two.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
            GroupNorm(min(8, out_channels), out_channels),
            nn.Sequential(nn.ReLU(), ChannelDropout(dropout)) if dropout else nn.ReLU(),  # weights keep their names
            nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
            GroupNorm(min(8, out_channels), out_channels),
            nn.ReLU(),
        )
        for module in self:
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor, presence: Presence | None = None, present: Tensor | None = None) -> Tensor:
        """See the class. With `presence` it hears, after its first norm, which images are `present` (B, C)."""
        convolution, norm, *rest = self
        x = norm(convolution(x))
        if presence is not None and present is not None:
            x = presence(x, present)
        for layer in rest:
            x = layer(x)
        return x


class Encoder(nn.Module):
    """The way down: a DoubleConv a level, with `dropout`, max-pooling by 2 in between.

    Input (B, C, D, H, W) with sides divisible by 2^(levels-1). Output: features of each level, finest first, level n
    of shape (B, widths[n], D/2^n, H/2^n, W/2^n). With `presence` the first level hears which images there are.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], dropout: float = 0.0, *, presence: bool = False
    ) -> None:
        super().__init__()
        self.presence = Presence(in_channels, widths[0]) if presence else None
        self.levels = nn.ModuleList(
            DoubleConv(below, width, dropout) for below, width in zip((in_channels, *widths[:-1]), widths, strict=True)
        )

    def forward(self, x: Tensor, present: Tensor | None = None) -> list[Tensor]:
        """See the class; `present` (B, C), bool. Without it all images are there."""
        features = [self.levels[0](fast_layout(x), self.presence, present)]
        for level in list(self.levels)[1:]:
            features.append(level(F.max_pool3d(features[-1], 2)))
        return features


class Up(nn.Module):
    """A step up: 1x1x1 convolution, trilinear by 2, concatenation with the skip, DoubleConv.

    The convolution comes first because it commutes with the interpolation and costs 8 times less before it.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = Pointwise(in_channels, out_channels, bias=False)
        self.merge = DoubleConv(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """`x` (B, in, D, H, W) and `skip` (B, out, 2D, 2H, 2W) to (B, out, 2D, 2H, 2W)."""
        # Without aligned corners a coarse voxel sits in the middle of the eight it was pooled from: nothing shifts.
        up = F.interpolate(self.narrow(fast_layout(x)), scale_factor=2, mode="trilinear", align_corners=False)
        first, *rest = self.merge
        assert isinstance(first, nn.Conv3d)
        # Two convolutions that are added are one of both inputs joined. The joined copy would be kept for backward.
        of_skip, of_up = first.weight.tensor_split([skip.shape[1]], dim=1)
        merged = F.conv3d(fast_layout(skip), of_skip, padding=1) + F.conv3d(up, of_up, padding=1)
        for layer in rest:
            merged = layer(merged)
        return merged


class Decoder(nn.Module):
    """The way up: the encoder's features, finest first, to logits (B, regions, D, H, W).

    With `deep_supervision` they are in training mode (B, K, regions, D, H, W): beside the finest those of every coarser
    level of the way up, each through a head of its own and trilinear to full size; each gets a loss.
    """

    def __init__(self, out_channels: int, widths: Sequence[int], deep_supervision: bool = False) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Up(below, width) for width, below in pairwise(widths))
        self.head = _head(widths[0], out_channels)
        coarse = widths[1:-1] if deep_supervision else []
        self.coarse = nn.ModuleList(_head(width, out_channels) for width in coarse)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """See the class."""
        ups = [features[-1]]
        for level, skip in zip(reversed(list(self.levels)), reversed(features[:-1]), strict=True):
            ups.append(level(ups[-1], skip))
        logits: Tensor = self.head(ups[-1]).contiguous()
        if not self.training or not self.coarse:
            return logits
        every = [logits]
        for head, x in zip(self.coarse, ups[-2:0:-1], strict=True):
            every.append(F.interpolate(head(x), logits.shape[-3:], mode="trilinear", align_corners=False))
        return torch.stack(every, dim=1)


def _head(in_channels: int, out_channels: int) -> Pointwise:
    head = Pointwise(in_channels, out_channels)
    nn.init.constant_(head.bias, log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]
    return head


class UNet3D(nn.Module):
    """3D U-Net with GroupNorm, so that it can be trained with DP-SGD.

    Input (B, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside). Output (B, regions, D, H, W), logits.
    Source: Cicek et al. 2016, arXiv:1606.06650. `dropout` is where Isensee et al. 2017 (arXiv:1802.10508) have theirs,
    on the way down between the convolutions of each level, with a rate of 0.3. With `presence` the model can do without
    some images: it takes `present` (B, C), bool, as well, and is told which they are, see `Presence`.
    `deep_supervision`, as in nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), gives logits
    (B, K, regions, D, H, W) in training mode: K guesses, from the finest level and each coarser one but the last, at
    full size.
    """

    series: ClassVar[bool] = False
    task: ClassVar[str] = "segmentation"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        *,
        dropout: float = 0.0,
        presence: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        self.encoder = Encoder(in_channels, widths, dropout, presence=presence)
        self.decoder = Decoder(out_channels, widths, deep_supervision)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """See the class; without `present` all images are there."""
        check_axes("UNet3D", x, "BCDHW", self.in_channels)
        if present is not None:
            x = only_present("UNet3D", x, present)
        return crop(self.decoder(self.encoder(pad(x, self.step), present)), x)


def pad(x: Tensor, step: int) -> Tensor:
    """Zeros at the far end of D, H and W (the last three axes) up to a multiple of `step` voxels.

    At the far end, not on both sides: pooling cells then start at voxel 0 whatever the size, so that the same tissue
    is pooled the same way in volumes of different sizes. Zero is the background and the mean of z-scored MRI.
    """
    depth, height, width = x.shape[-3:]
    return F.pad(x, (0, -width % step, 0, -height % step, 0, -depth % step))


def crop(x: Tensor, like: Tensor) -> Tensor:
    """Undo `pad`: the first D, H and W voxels of `x`, as many as `like` has."""
    depth, height, width = like.shape[-3:]
    return x[..., :depth, :height, :width]
