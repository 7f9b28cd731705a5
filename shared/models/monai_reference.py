from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliofed.shared.models.conv_lstm import check_axes
from gliofed.shared.models.unet import crop, pad


class DynUNetReference(nn.Module):
    """MONAI's DynUNet (the network of nnU-Net), a reference to compare with at equal width.

    Input (B, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside). Output (B, regions, D, H, W), logits.
    Strided convolutions of 3x3x3 with InstanceNorm, `widths` channels a level. With `deep_supervision` the output in
    training mode is (B, K, regions, D, H, W): that of each level of the way up, MONAI's, at full size.
    Not for differential privacy: its activations work in place.
    Source: Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z.
    """

    series: ClassVar[bool] = False
    task: ClassVar[str] = "segmentation"

    def __init__(
        self, in_channels: int, out_channels: int, widths: Sequence[int], *, deep_supervision: bool = False
    ) -> None:
        super().__init__()
        from monai.networks.nets.dynunet import DynUNet  # here, because MONAI takes seconds to load

        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        strides = [1] + [2] * (len(widths) - 1)
        net = DynUNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[3] * len(widths),
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=list(widths),
            deep_supervision=deep_supervision,
            deep_supr_num=max(1, len(widths) - 2),
        )
        # MONAI registers each layer twice. These two hold all of them once: no weight travels or is saved twice.
        self.net = nn.Sequential(net.skip_layers, net.output_block)
        self.coarse: list[Tensor] = net.heads if deep_supervision else []  # a forward pass leaves its guesses here

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        check_axes("DynUNetReference", x, "BCDHW", self.in_channels)
        padded = pad(x, self.step)
        if padded.shape[2:].numel() == self.step**3:  # one voxel at the coarsest level; InstanceNorm needs two
            padded = F.pad(padded, (0, self.step))
        logits: Tensor = self.net(padded)
        if self.training and self.coarse:
            coarse = [F.interpolate(each, logits.shape[-3:]) for each in self.coarse]
            self.coarse[:] = [torch.empty(0)] * len(coarse)  # else they would hold the step's memory until the next
            logits = torch.stack([logits, *coarse], dim=1)
        return crop(logits, x)


class SegResNetReference(nn.Module):
    """MONAI's SegResNet, a residual U-Net with GroupNorm, a reference to compare with at equal width.

    Input (B, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside). Output (B, regions, D, H, W), logits.
    Only the first of `widths` counts: each level has twice the channels of the one above. It must divide by 8.
    Not for differential privacy: its activations work in place.
    Source: Myronenko 2018, arXiv:1810.11654, without the autoencoder.
    """

    series: ClassVar[bool] = False
    task: ClassVar[str] = "segmentation"

    def __init__(self, in_channels: int, out_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        from monai.networks.nets.segresnet import SegResNet  # here, because MONAI takes seconds to load

        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        # Residual blocks a level: with four levels MONAI's own 1, 2, 2, 4 on the way down, 1 on the way up.
        self.net = SegResNet(
            spatial_dims=3,
            init_filters=widths[0],
            in_channels=in_channels,
            out_channels=out_channels,
            blocks_down=(1, *[2] * (len(widths) - 2), 4),
            blocks_up=(1,) * (len(widths) - 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        check_axes("SegResNetReference", x, "BCDHW", self.in_channels)
        return crop(self.net(pad(x, self.step)), x)
