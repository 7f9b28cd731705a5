from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliofed.shared.models.conv_lstm import ConvLSTMLayer, State, check_axes
from gliofed.shared.models.presence import Presence, only_present
from gliofed.shared.models.unet import PRIOR, DoubleConv, GroupNorm, Pointwise, crop, fast_layout, pad


class LSTMUNet3D(nn.Module):
    """3D U-Net that refines its mask: it reads the same volume K times, with its last mask and its memory.

    Input (B, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside). Output, logits: in training mode of every
    iteration, (B, K, regions, D, H, W), each of which gets a loss; in eval mode of the last, (B, regions, D, H, W).

    Below full resolution each level, on the way down and up, is a convolution and a ConvLSTM, whose states go on from
    iteration to iteration; the mask, sigmoid(logits), is fed back into the first of them. Full resolution has no
    memory: what it makes of the image is made once. `light` is that of ConvLSTMLayer. `widths` are two or more.

    `iterations`, K, may be changed after training. With `stop_when_stable` a patient in eval mode keeps the logits of
    the first iteration that changed no voxel of its masks (logits > 0); leave it off for torch.export. `presence` is
    that of UNet3D.
    Source: the original LSTM-U-Net, with the loop that its description promises; ConvLSTM of arXiv:1506.04214.
    """

    series: ClassVar[bool] = False
    task: ClassVar[str] = "segmentation"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        *,
        iterations: int = 3,
        light: bool = True,
        stop_when_stable: bool = False,
        presence: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        self.iterations, self.stop_when_stable = iterations, stop_when_stable
        self.stem = DoubleConv(in_channels, widths[0])
        self.presence = Presence(in_channels, widths[0]) if presence else None
        # Two convolutions that are added are one convolution of both inputs; the image's share is needed once only.
        self.image = _convolution(widths[0], widths[1])
        # Four voxels wide: centred on the two that become one.
        self.feedback = nn.Conv3d(out_channels, widths[1], 4, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(self.feedback.weight, nonlinearity="relu")
        self.first = Memory(widths[1], light=light)
        self.down = nn.ModuleList(Down(above, width, light=light) for above, width in pairwise(widths[1:]))
        self.up = nn.ModuleList(Up(below, width, light=light) for below, width in pairwise(reversed(widths[1:])))
        self.skip = _convolution(widths[0], widths[0])
        self.last = Last(widths[1], widths[0])
        self.head = Pointwise(widths[0], out_channels)
        nn.init.constant_(self.head.bias, log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]

    @property
    def iterations(self) -> int:
        """How often the mask is made: 1 or more."""
        return self._iterations

    @iterations.setter
    def iterations(self, value: int) -> None:
        if value < 1:
            raise ValueError(f"model.iterations={value}: must be 1 or more; 3 is usual")
        self._iterations = value

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """See the class; without `present` all images are there."""
        check_axes("LSTMUNet3D", x, "BCDHW", self.in_channels)
        if present is not None:
            x = only_present("LSTMUNet3D", x, present)
        fine = self.stem(fast_layout(pad(x, self.step)), self.presence, present)
        once = (self.image(F.max_pool3d(fine, 2)), self.skip(fine))
        if self.stop_when_stable and not self.training:
            return self._until_stable(once, x)
        logits, states = self._refine(once)
        every = [logits]
        for _ in range(1, self.iterations):
            logits, states = self._refine(once, logits, states)
            every.append(logits)
        return crop(torch.stack(every, dim=1) if self.training else logits, x)

    def _until_stable(self, once: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        logits, states = self._refine(once)
        final, going = logits, torch.arange(len(x), device=x.device)
        for _ in range(1, self.iterations):
            before = crop(logits, x) > 0  # what is outside the volume may change: nobody sees it
            logits, states = self._refine(once, logits, states)
            final = final.index_copy(0, going, logits)
            moved = ((crop(logits, x) > 0) != before).flatten(1).any(dim=1)
            if not moved.any():
                break
            # Stable patients leave: a patient's result must not depend on who else is in the batch.
            once, logits, going = (once[0][moved], once[1][moved]), logits[moved], going[moved]
            states = [(h[moved], c[moved]) for h, c in states]
        return crop(final, x)

    def _refine(
        self, once: tuple[Tensor, Tensor], logits: Tensor | None = None, states: Sequence[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """One iteration: logits, and the states of the levels in the order in which they work.

        `once` is what the image gives to the first level, and the skip at full resolution.
        """
        image, skip = once
        count = 1 + len(self.down) + len(self.up)
        last: Sequence[State | None] = [None] * count if states is None else states
        seen = image if logits is None else image + self.feedback(fast_layout(logits.sigmoid()))
        ends = [self.first(seen, last[0])]
        for level in self.down:
            ends.append(level(ends[-1][0], last[len(ends)]))
        lower = [h for h, _ in ends]
        for level, across in zip(self.up, reversed(lower[:-1]), strict=True):
            ends.append(level(ends[-1][0], across, last[len(ends)]))
        refined: Tensor = self.head(self.last(ends[-1][0], skip))
        return refined.contiguous(), ends


class Memory(nn.Module):
    """GroupNorm, ReLU and one step of a ConvLSTM: (B, C, D, H, W) and the last state to the next state.

    The state's h, of the same shape, is the level's output.
    """

    def __init__(self, channels: int, *, light: bool) -> None:
        super().__init__()
        self.norm = GroupNorm(min(8, channels), channels)
        self.lstm = ConvLSTMLayer(channels, channels, light=light)

    def forward(self, x: Tensor, state: State | None) -> State:
        """See the class; without a `state` it starts at zero."""
        return self.lstm.step(self.lstm.input_gates(self.norm(x).relu()), state)


class Down(nn.Module):
    """A step down: max-pooling by 2, 3x3x3 convolution, Memory."""

    def __init__(self, in_channels: int, out_channels: int, *, light: bool) -> None:
        super().__init__()
        self.convolution = _convolution(in_channels, out_channels)
        self.memory = Memory(out_channels, light=light)

    def forward(self, x: Tensor, state: State | None) -> State:
        """`x` (B, in, D, H, W) to a state (B, out, D/2, H/2, W/2)."""
        end: State = self.memory(self.convolution(F.max_pool3d(fast_layout(x), 2)), state)
        return end


class Up(nn.Module):
    """A step up: 1x1x1 convolution, trilinear by 2, concatenation with the skip, 3x3x3 convolution, Memory."""

    def __init__(self, in_channels: int, out_channels: int, *, light: bool) -> None:
        super().__init__()
        self.narrow = Pointwise(in_channels, out_channels, bias=False)
        self.merge = _convolution(2 * out_channels, out_channels)
        self.memory = Memory(out_channels, light=light)

    def forward(self, x: Tensor, skip: Tensor, state: State | None) -> State:
        """`x` (B, in, D, H, W) and `skip` (B, out, 2D, 2H, 2W) to a state of the skip's shape."""
        joined = torch.cat([fast_layout(skip), _doubled(self.narrow(fast_layout(x)))], dim=1)
        end: State = self.memory(self.merge(joined), state)
        return end


class Last(nn.Module):
    """The step to full resolution: like Up with a ReLU for the memory; the skip is convolved already."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = Pointwise(in_channels, out_channels, bias=False)
        self.merge = _convolution(out_channels, out_channels)
        self.norm = GroupNorm(min(8, out_channels), out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """`x` (B, in, D, H, W) and `skip` (B, out, 2D, 2H, 2W) to the skip's shape."""
        wide: Tensor = self.norm(skip + self.merge(_doubled(self.narrow(fast_layout(x)))))
        return wide.relu()


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)


def _convolution(in_channels: int, out_channels: int) -> nn.Conv3d:
    convolution = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution
