from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliofed.shared.models.conv_lstm import State, check_axes
from gliofed.shared.models.dropout import Draws
from gliofed.shared.models.presence import Presence, only_present
from gliofed.shared.models.unet import PRIOR, DoubleConv, GroupNorm, Pointwise, crop, fast_layout, pad


class LSTMUNet3D(Draws):
    """3D U-Net that refines its mask: it reads a volume once, then works on it K times, with its last mask and memory.

    Input (B, C, D, H, W), z-scored MRI, RAS, 1 mm, any size (padded inside). Output, logits: in eval mode (B, regions,
    D, H, W); in training mode two guesses, (B, 2, regions, D, H, W), each of which gets a loss: the mask at half
    resolution of the last iteration, interpolated, and the mask at full resolution.

    Only half resolution and below are refined: there each level, on the way down and up, is a convolution and a memory,
    whose states go on from iteration to iteration, and the mask at half resolution, sigmoid(logits), is fed back. What
    full resolution makes of the image is made before, once, and the mask at full resolution after the last iteration.
    `widths` are two or more.

    Training draws the number of iterations of each call, 1 to K, from `generator`, which `seed_layers` sets; without it
    there are K. Gradients go through the last of them alone. `iterations`, K, may be changed after training. With
    `stop_when_stable` a patient in eval mode keeps the state of the first iteration that changed no voxel of its masks
    at half resolution (logits > 0); leave it off for torch.export. `presence` is that of
    UNet3D.
    Source: the original LSTM-U-Net, with the loop that its description promises; ConvLSTM of arXiv:1506.04214; random
    numbers of iterations and gradients of the last as in AlphaFold's recycling, doi:10.1038/s41586-021-03819-2, and for
    segmentation arXiv:2309.07513.
    """

    series: ClassVar[bool] = False
    task: ClassVar[str] = "segmentation"
    on_cpu: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        *,
        iterations: int = 3,
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
        self.feedback = _convolution(out_channels, widths[1])
        self.first = Memory(widths[1])
        self.down = nn.ModuleList(Down(above, width) for above, width in pairwise(widths[1:]))
        self.up = nn.ModuleList(Up(below, width) for below, width in pairwise(reversed(widths[1:])))
        self.coarse = _head(widths[1], out_channels)
        self.skip = _convolution(widths[0], widths[0])
        self.last = Last(widths[1], widths[0])
        self.head = _head(widths[0], out_channels)

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
        image, skip = self.image(F.max_pool3d(fine, 2)), self.skip(fine)
        if self.stop_when_stable and not self.training:
            return crop(self._full(self._until_stable(image, x), skip), x)
        logits, states = self._iterate(image)
        full = self._full(states[-1][0], skip)
        return crop(torch.stack([_doubled(logits), full], dim=1) if self.training else full, x)

    def _iterate(self, image: Tensor) -> tuple[Tensor, list[State]]:
        """All iterations; in training the last alone remembers how it was made."""
        number, logits, states = self.iterations, None, None
        if self.training and self.generator is not None:
            number = int(torch.randint(1, number + 1, (), generator=self.generator))
        for _ in range(number - 1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
                logits, states = self._refine(image, logits, states)
        return self._refine(image, logits, states)

    def _until_stable(self, image: Tensor, x: Tensor) -> Tensor:
        """The finest level's last h of each patient."""
        half = x[..., ::2, ::2, ::2]  # what is outside the volume may change: nobody sees it
        logits, states = self._refine(image)
        final, going = states[-1][0], torch.arange(len(x), device=x.device)
        for _ in range(1, self.iterations):
            before = crop(logits, half) > 0
            logits, states = self._refine(image, logits, states)
            final = final.index_copy(0, going, states[-1][0])
            moved = ((crop(logits, half) > 0) != before).flatten(1).any(dim=1)
            if not moved.any():
                break
            # Stable patients leave: a patient's result must not depend on who else is in the batch.
            image, logits, going = image[moved], logits[moved], going[moved]
            states = [(h[moved], c[moved]) for h, c in states]
        return final

    def _refine(
        self, image: Tensor, logits: Tensor | None = None, states: Sequence[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """One iteration: logits at half resolution, and the states of the levels in the order in which they work.

        `image` is what the image gives to the first level.
        """
        count = 1 + len(self.down) + len(self.up)
        last: Sequence[State | None] = [None] * count if states is None else states
        seen = image if logits is None else image + self.feedback(fast_layout(logits.sigmoid()))
        ends = [self.first(seen, last[0])]
        for level in self.down:
            ends.append(level(ends[-1][0], last[len(ends)]))
        lower = [h for h, _ in ends]
        for level, across in zip(self.up, reversed(lower[:-1]), strict=True):
            ends.append(level(ends[-1][0], across, last[len(ends)]))
        return self.coarse(ends[-1][0]), ends

    def _full(self, h: Tensor, skip: Tensor) -> Tensor:
        logits: Tensor = self.head(self.last(h, skip))
        return logits.contiguous()


class Memory(nn.Module):
    """One step of a ConvLSTM whose convolution of h is normalised: (B, C, D, H, W), the last state to the next state.

    m = relu(norm(x + U * h)),  i, f, o = sigmoid(W m + b),  g = tanh(W m + b),  c' = f c + i g,  h' = o tanh(c')

    Only U * h, 3x3x3, looks around: W is 1x1x1. On a CPU that takes a third of the time of a depthwise convolution of h
    for every gate. The state's h, of the same shape, is the level's output. Forget bias 1 as in ConvLSTMLayer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = _convolution(channels, channels)
        self.norm = GroupNorm(min(8, channels), channels)
        # A matrix for each gate: parts of one product would not lie together in memory.
        self.gates = nn.ModuleList(Pointwise(channels, channels) for _ in range(4))
        with torch.no_grad():
            for gate, bias in zip(self.gates, (0.0, 1.0, 0.0, 0.0), strict=True):
                nn.init.constant_(gate.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, state: State | None) -> State:
        """See the class; without a `state` it starts at zero."""
        seen = self.norm(x if state is None else x + self.hidden(fast_layout(state[0]))).relu()
        i, f, o, g = (gate(seen) for gate in self.gates)
        c = i.sigmoid() * g.tanh()
        if state is not None:
            c = f.sigmoid() * state[1] + c
        return o.sigmoid() * c.tanh(), c


class Down(nn.Module):
    """A step down: max-pooling by 2, 3x3x3 convolution, Memory."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = _convolution(in_channels, out_channels)
        self.memory = Memory(out_channels)

    def forward(self, x: Tensor, state: State | None) -> State:
        """`x` (B, in, D, H, W) to a state (B, out, D/2, H/2, W/2)."""
        end: State = self.memory(self.convolution(F.max_pool3d(fast_layout(x), 2)), state)
        return end


class Up(nn.Module):
    """A step up: 1x1x1 convolution, trilinear by 2, concatenation with the skip, 3x3x3 convolution, Memory."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.narrow = Pointwise(in_channels, out_channels, bias=False)
        self.merge = _convolution(2 * out_channels, out_channels)
        self.memory = Memory(out_channels)

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


def _head(in_channels: int, out_channels: int) -> Pointwise:
    head = Pointwise(in_channels, out_channels)
    nn.init.constant_(head.bias, log(PRIOR / (1 - PRIOR)))  # type: ignore[arg-type]
    return head
