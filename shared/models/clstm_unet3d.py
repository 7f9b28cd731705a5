from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from gliofed.shared.models.conv_lstm import ConvLSTM, check_axes
from gliofed.shared.models.unet import Decoder, Encoder, crop, pad


class CLSTMUNet3D(nn.Module):
    """3D U-Net that reads a series of visits: a ConvLSTM joins the frames at the bottleneck.

    Input (B, T, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside), any number of frames T at any call.
    Output (B, T, regions, D, H, W), logits of every frame. Encoder and decoder treat frames alone. A frame sees the
    frames before it; with `bidirectional` all of them, at half the width a direction, so that the decoder is the same.
    `dropout` is that of UNet3D; each frame has its own. With `difference` the encoder reads beside each frame what
    changed since the frame before, their difference, 0 of the first: the bottleneck sees a quarter of the resolution
    or less, and most changes between visits are a voxel or two wide.
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
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        self.difference = difference
        self.encoder = Encoder(2 * in_channels if difference else in_channels, widths, dropout)
        hidden = widths[-1] // 2 if bidirectional else widths[-1]
        self.lstm = ConvLSTM(widths[-1], hidden, layers=layers, light=light, bidirectional=bidirectional)
        self.decoder = Decoder(out_channels, widths)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        check_axes("CLSTMUNet3D", x, "BTCDHW", self.in_channels)
        frames = x.shape[1]
        seen = torch.cat([x, since_before(x)], dim=2) if self.difference else x
        *skips, bottom = self.encoder(pad(seen.flatten(0, 1), self.step))  # each (B*T, width, d, h, w)
        # Plain: the cell has many weights for few voxels, and would copy them to every frame's layout and back.
        joined, _ = self.lstm(torch.unflatten(bottom.contiguous(), 0, (-1, frames)))
        logits: Tensor = self.decoder([*skips, joined.flatten(0, 1)])
        return torch.unflatten(crop(logits, x), 0, (-1, frames))


def since_before(x: Tensor) -> Tensor:
    """Each frame of (B, T, ...) minus the one before; 0 of the first."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:] - x[:, :-1]], dim=1)
