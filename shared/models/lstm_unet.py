from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.conv_lstm import ConvLSTMLayer, State, check_axes
from shared.models.unet import PRIOR, Up, crop, pad


class LSTMUNet3D(nn.Module):
    """3D U-Net that refines its mask: it reads the same volume K times, with its last mask and its memory.

    Input (B, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside). Output, logits: in training mode of every
    iteration, (B, K, regions, D, H, W), each of which gets a loss; in eval mode of the last, (B, regions, D, H, W).

    Iteration k sees the image and sigmoid(logits of k-1). Below full resolution each level is a convolution and a
    ConvLSTM, on the way down and up, whose states go on from iteration to iteration; full resolution has a second
    convolution in its place. `light` is that of ConvLSTMLayer. `widths` names two levels or more.

    `iterations`, K, may be changed after training. With `stop_when_stable` a patient in eval mode keeps the logits of
    the first iteration that changed no voxel of its masks (logits > 0); leave it off for torch.export.
    Source: the seed's LSTM-U-Net, with the loop that its document promises; ConvLSTM of arXiv:1506.04214.
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
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.step = 2 ** (len(widths) - 1)
        self.iterations, self.stop_when_stable = iterations, stop_when_stable
        # Two convolutions that are added are one convolution of both inputs; the image's share is needed once only.
        self.image = _convolution(in_channels, widths[0])
        self.feedback = _convolution(out_channels, widths[0])
        self.stem = nn.Sequential(_normalise(widths[0]), nn.ReLU(), *_block(widths[0], widths[0]))
        self.down = nn.ModuleList(RecurrentLevel(above, width, light=light) for above, width in pairwise(widths))
        self.decoder = RecurrentDecoder(out_channels, widths, light=light)

    @property
    def iterations(self) -> int:
        """How often the mask is made: 1 or more."""
        return self._iterations

    @iterations.setter
    def iterations(self, value: int) -> None:
        if value < 1:
            raise ValueError(f"model.iterations={value}: must be 1 or more; 3 is usual")
        self._iterations = value

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        check_axes("LSTMUNet3D", x, "BCDHW", self.in_channels)
        image = self.image(pad(x, self.step))
        if self.stop_when_stable and not self.training:
            return self._until_stable(image, x)
        logits, states = self._refine(image)
        every = [logits]
        for _ in range(1, self.iterations):
            logits, states = self._refine(image, logits, states)
            every.append(logits)
        return crop(torch.stack(every, dim=1) if self.training else logits, x)

    def _until_stable(self, image: Tensor, x: Tensor) -> Tensor:
        logits, states = self._refine(image)
        final, going = logits, torch.arange(len(image), device=image.device)
        for _ in range(1, self.iterations):
            before = crop(logits, x) > 0  # what is outside the volume may change: nobody sees it
            logits, states = self._refine(image, logits, states)
            final = final.index_copy(0, going, logits)
            moved = ((crop(logits, x) > 0) != before).flatten(1).any(dim=1)
            if not moved.any():
                break
            # Stable patients leave: a patient's result must not depend on who else is in the batch.
            image, logits, going = image[moved], logits[moved], going[moved]
            states = [(h[moved], c[moved]) for h, c in states]
        return crop(final, x)

    def _refine(
        self, image: Tensor, logits: Tensor | None = None, states: Sequence[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """One iteration, from the image's share of the stem: logits, and the states of `down`, then of the decoder."""
        levels = len(self.down)
        down: Sequence[State | None] = [None] * levels if states is None else states[:levels]
        up: Sequence[State | None] = [None] * (levels - 1) if states is None else states[levels:]
        seen = image if logits is None else image + self.feedback(logits.sigmoid())
        features, ends = [self.stem(seen)], []
        for level, state in zip(self.down, down, strict=True):
            ends.append(level(F.max_pool3d(features[-1], 2), state))
            features.append(ends[-1][0])
        refined, decoder_ends = self.decoder(features, up)
        return refined, ends + decoder_ends


class RecurrentLevel(nn.Module):
    """A convolution block, then one step of a ConvLSTM: (B, in, D, H, W) and the last state to the next state.

    The state's h, (B, out, D, H, W), is the level's output.
    """

    def __init__(self, in_channels: int, out_channels: int, *, light: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(*_block(in_channels, out_channels))
        self.lstm = ConvLSTMLayer(out_channels, out_channels, light=light)

    def forward(self, x: Tensor, state: State | None) -> State:
        """See the class; without a `state` it starts at zero."""
        return self.lstm.step(self.lstm.input_gates(self.block(x)), state)


class RecurrentUp(nn.Module):
    """unet.Up with a RecurrentLevel in place of its second convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, light: bool) -> None:
        super().__init__()
        self.narrow = nn.Conv3d(in_channels, out_channels, 1, bias=False)
        self.merge = RecurrentLevel(2 * out_channels, out_channels, light=light)

    def forward(self, x: Tensor, skip: Tensor, state: State | None) -> State:
        """`x` (B, in, D, H, W) and `skip` (B, out, 2D, 2H, 2W) to a state of the skip's shape."""
        up = F.interpolate(self.narrow(x), scale_factor=2, mode="trilinear", align_corners=False)
        merged: State = self.merge(torch.cat([skip, up], dim=1), state)
        return merged


class RecurrentDecoder(nn.Module):
    """The way up: features, finest first, and a state a level but the finest, coarsest first, to logits and states."""

    def __init__(self, out_channels: int, widths: Sequence[int], *, light: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            RecurrentUp(below, width, light=light) for below, width in pairwise(reversed(widths[1:]))
        )
        self.last = Up(widths[1], widths[0])
        self.head = nn.Conv3d(widths[0], out_channels, 1)
        nn.init.constant_(self.head.bias, log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor], states: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        """See the class."""
        x, ends = features[-1], []
        for level, skip, state in zip(self.levels, reversed(features[1:-1]), states, strict=True):
            ends.append(level(x, skip, state))
            x = ends[-1][0]
        return self.head(self.last(x, features[0])), ends


def _block(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [_convolution(in_channels, out_channels), _normalise(out_channels), nn.ReLU()]


def _convolution(in_channels: int, out_channels: int) -> nn.Conv3d:
    convolution = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution


def _normalise(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(8, channels), channels)
