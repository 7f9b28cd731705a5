"""CLSTM-UNet3D as its authors published it: what ours is measured against. Nothing else uses it.

Built from its description, its costly habits kept: a cell that convolves input and state together, frame by frame and
also on the zero state; and a fourth step up, from full resolution to full resolution.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DoubleConv(nn.Sequential):
    """3x3x3 convolution, BatchNorm, ReLU, twice: (B, in, D, H, W) to (B, out, D, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(),
            nn.Conv3d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(),
        )


class SlowConvLSTM(nn.Module):
    """One ConvLSTM layer frame by frame: (B, T, in, D, H, W) to (B, T, hidden, D, H, W)."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv3d(in_channels + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """From a zero state."""
        h = x.new_zeros(x.shape[0], self.hidden, *x.shape[3:])
        c, outputs = h, []
        for frame in x.unbind(1):
            i, f, o, g = self.gates(torch.cat([frame, h], dim=1)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, dim=1)


class Up(nn.Module):
    """Trilinear by 2, cropped to the skip, concatenation, DoubleConv."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.merge = DoubleConv(in_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """`x` (B, in, ...) and `skip` (B, skip, D, H, W) to (B, out, D, H, W)."""
        depth, height, width = skip.shape[2:]
        up = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)[..., :depth, :height, :width]
        merged: Tensor = self.merge(torch.cat([up, skip], dim=1))
        return merged


class PublishedDesign(nn.Module):
    """The whole: (B, T, C, D, H, W) with sides divisible by 8 to logits (B, T, regions, D, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 64) -> None:
        super().__init__()
        widths: Sequence[int] = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList(DoubleConv(below, out) for below, out in pairwise([in_channels, *widths]))
        self.lstm = SlowConvLSTM(widths[-1], widths[-1])
        self.up = nn.ModuleList(Up(below, out, out) for out, below in reversed(list(pairwise(widths))))
        self.superfluous_up = Up(width, width, width)
        self.head = nn.Conv3d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        frames = x.shape[1]
        skips = [self.down[0](x.flatten(0, 1))]
        for level in list(self.down)[1:]:
            skips.append(level(F.max_pool3d(skips[-1], 2)))
        joined = self.lstm(skips.pop().unflatten(0, (-1, frames)))
        logits = [
            self.decode(joined[:, t], [skip.unflatten(0, (-1, frames))[:, t] for skip in skips]) for t in range(frames)
        ]
        return torch.stack(logits, dim=1)

    def decode(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """One frame's logits (B, regions, D, H, W), from its bottleneck and its encoder's features, finest first."""
        for level, skip in zip(self.up, reversed(skips), strict=True):
            x = level(x, skip)
        logits: Tensor = self.head(self.superfluous_up(x, skips[0]))
        return logits
