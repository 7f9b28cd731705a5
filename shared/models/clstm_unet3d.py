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
        dropout: float = 0.0,
        presence: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        self.encoder = Encoder(in_channels, widths, dropout, presence=presence)
        hidden = widths[-1] // 2 if bidirectional else widths[-1]
        self.lstm = ConvLSTM(widths[-1], hidden, layers=layers, light=light, bidirectional=bidirectional)
        self.decoder = Decoder(out_channels, widths)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """See the class; without `present` all images are there."""
        check_axes("CLSTMUNet3D", x, "BTCDHW", self.in_channels)
        if present is not None:
            x, present = only_present("CLSTMUNet3D", x, present), present.flatten(0, 1)
        frames = x.shape[1]
        *skips, bottom = self.encoder(pad(x.flatten(0, 1), self.step), present)  # each (B*T, width, d, h, w)
        # Plain: the cell has many weights for few voxels, and would copy them to every frame's layout and back.
        joined, _ = self.lstm(torch.unflatten(bottom.contiguous(), 0, (-1, frames)))
        logits: Tensor = self.decoder([*skips, joined.flatten(0, 1)])
        return torch.unflatten(crop(logits, x), 0, (-1, frames))
