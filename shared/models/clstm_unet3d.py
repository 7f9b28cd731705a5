from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gliofed.shared.models.conv_lstm import ConvLSTM, check_axes
from gliofed.shared.models.presence import only_present
from gliofed.shared.models.unet import Decoder, Encoder, crop, pad


class CLSTMUNet3D(nn.Module):
    """3D U-Net that reads a series of visits: a ConvLSTM joins the frames at the bottleneck.

    Input (B, T, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside), any number of frames T at any call.
    Output (B, T, regions, D, H, W), logits of every frame. Encoder and decoder treat frames alone. A frame sees the
    frames before it; with `bidirectional` all of them, at half the width a direction, so that the decoder is the same.
    `dropout` and `presence` are those of UNet3D; each frame has its own, with `present` (B, T, C).

    With `difference` the encoder reads beside each frame what changed since the frame before, their difference, 0 of
    the first and of an image that one of the two lacks: the bottleneck sees a quarter of the resolution or less, and
    most changes between visits are a voxel or two wide.
    Source: the original CLSTM-UNet3D; ConvLSTM of Shi et al. 2015, arXiv:1506.04214, U-Net of arXiv:1606.06650.
    """

    series: ClassVar[bool] = True
    task: ClassVar[str] = "segmentation"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        *,
        layers: int = 1,
        light: bool = False,
        bidirectional: bool = False,
        difference: bool = False,
        dropout: float = 0.0,
        presence: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        self.difference = difference
        self.encoder = Encoder((1 + difference) * in_channels, widths, dropout, presence=presence)
        hidden = widths[-1] // 2 if bidirectional else widths[-1]
        self.lstm = ConvLSTM(widths[-1], hidden, layers=layers, light=light, bidirectional=bidirectional)
        self.decoder = Decoder(out_channels, widths)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """See the class; without `present` all images are there."""
        check_axes("CLSTMUNet3D", x, "BTCDHW", self.in_channels)
        if present is not None:
            x = only_present("CLSTMUNet3D", x, present)
        frames = x.shape[1]
        if self.difference:
            x, present = with_difference(x, present)
        there = None if present is None else present.flatten(0, 1)
        *skips, bottom = self.encoder(pad(x.flatten(0, 1), self.step), there)  # each (B*T, width, d, h, w)
        # Plain: the cell has many weights for few voxels, and would copy them to every frame's layout and back.
        joined, _ = self.lstm(torch.unflatten(bottom.contiguous(), 0, (-1, frames)))
        logits: Tensor = self.decoder([*skips, joined.flatten(0, 1)])
        return torch.unflatten(crop(logits, x), 0, (-1, frames))


def with_difference(x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Frames (B, T, C, D, H, W) with each one minus the one before as C further channels, and which of them are there.

    The first frame's difference is 0, and that of an image which one of the two frames lacks: it is not there.
    """
    change = torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], dim=1)
    if present is not None:
        known = torch.cat([present[:, :1], present[:, 1:] & present[:, :-1]], dim=1)
        change, present = only_present("CLSTMUNet3D", change, known), torch.cat([present, known], dim=2)
    return torch.cat([x, change], dim=2), present
