from collections.abc import Sequence

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""Hidden and cell state of one layer in one direction, each (B, hidden, D, H, W)."""


class ConvLSTMLayer(nn.Module):
    """One ConvLSTM layer in one direction of time, without peepholes.

    i, f, o = sigmoid(Wx * x_t + Wh * h_{t-1} + b),  g = tanh(Wx * x_t + Wh * h_{t-1} + b)
    c_t = f c_{t-1} + i g,  h_t = o tanh(c_t)        (* is a convolution with zeros outside)

    `light` takes a 1x1x1 Wx and a depthwise Wh, in which each channel's gates see that channel of h alone.
    Input (B, T, C, D, H, W), output (B, T, hidden, D, H, W) in the order of the input, and the state after the last
    frame read, which is frame 0 with `reverse`.
    Source: Shi et al. 2015, arXiv:1506.04214; forget bias 1 as in Jozefowicz et al. 2015.
    """

    def __init__(
        self, in_channels: int, hidden: int, kernel: int = 3, *, light: bool = False, reverse: bool = False
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"ConvLSTM kernel={kernel}: must be odd, so that the states keep their size")
        self.hidden, self.light, self.reverse = hidden, light, reverse
        # The bias is the input convolution's alone: the hidden one then gives exactly zero on a zero state.
        self.input_gates = nn.Conv3d(in_channels, 4 * hidden, 1 if light else kernel, padding="same")
        self.hidden_gates = nn.Conv3d(
            hidden, 4 * hidden, kernel, padding=kernel // 2, groups=hidden if light else 1, bias=False
        )
        with torch.no_grad():
            nn.init.zeros_(self.input_gates.bias)  # type: ignore[arg-type]
            nn.init.ones_(self.input_gates.bias[hidden : 2 * hidden])  # type: ignore[index]

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over all frames of `x`; without a `state` it starts at zero."""
        frames = x.shape[1]
        from_input = torch.unflatten(self.input_gates(x.flatten(0, 1)), 0, (-1, frames)).unbind(1)  # all frames at once
        outputs = []
        for gates in reversed(from_input) if self.reverse else from_input:
            state = self.step(gates, state)
            outputs.append(state[0])
        assert state is not None
        return torch.stack(outputs[::-1] if self.reverse else outputs, dim=1), state

    def step(self, gates: Tensor, state: State | None) -> State:
        """Go on by one frame, from its input's share of the gates (B, 4 hidden, D, H, W), in the order i, f, o, g."""
        if state is not None:
            gates = gates + self._from_hidden(state[0])
        i, f, o = gates[:, : 3 * self.hidden].sigmoid().chunk(3, dim=1)
        g = gates[:, 3 * self.hidden :].tanh()
        c = i * g if state is None else f * state[1] + i * g
        return o * c.tanh(), c

    def _from_hidden(self, h: Tensor) -> Tensor:
        gates: Tensor = self.hidden_gates(h)
        if self.light:  # Groups lay the four gates of a channel side by side; ours are four blocks of channels.
            gates = torch.unflatten(gates, 1, (self.hidden, 4)).transpose(1, 2).flatten(1, 2)
        return gates


class ConvLSTM(nn.Module):
    """Stacked 3D ConvLSTM, in one or both directions of time.

    Input (B, T, C, D, H, W) for any B, T, D, H, W. Output (B, T, out_channels, D, H, W) of the last layer, and the
    final states, a list with one (h, c) for each layer, or two, forward then backward, with `bidirectional`. That
    list is also what `states` takes, to go on where another call ended.

    Both directions are concatenated as channels, as in nn.LSTM: out_channels is 2 hidden, and a layer above the first
    reads both. Every voxel of a frame then sees the whole series, later visits too.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        *,
        layers: int = 1,
        kernel: int = 3,
        light: bool = False,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"ConvLSTM layers={layers}: must be 1 or more")
        self.in_channels, self.hidden = in_channels, hidden
        self.directions = 2 if bidirectional else 1
        self.out_channels = self.directions * hidden
        self.layers = nn.ModuleList(
            ConvLSTMLayer(self.out_channels if layer else in_channels, hidden, kernel, light=light, reverse=reverse)
            for layer in range(layers)
            for reverse in (False, True)[: self.directions]
        )

    def forward(self, x: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """Read the series `x`, from zero states or from `states`."""
        check_axes("ConvLSTM", x, "BTCDHW", self.in_channels)
        starts = self._check_states(x, states)
        finals: list[State] = []
        for first in range(0, len(self.layers), self.directions):
            outputs = []
            for index in range(first, first + self.directions):
                output, final = self.layers[index](x, starts[index])
                outputs.append(output)
                finals.append(final)
            x = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
        return x, finals

    def _check_states(self, x: Tensor, states: Sequence[State] | None) -> Sequence[State | None]:
        if states is None:
            return [None] * len(self.layers)
        if len(states) != len(self.layers):
            raise ValueError(
                f"ConvLSTM: {len(states)} states; expected {len(self.layers)}, one (h, c) a layer and direction"
            )
        expected = (x.shape[0], self.hidden, *x.shape[3:])
        for index, state in enumerate(states):
            for name, tensor in zip("hc", state, strict=True):
                if tensor.shape != expected:
                    raise ValueError(
                        f"ConvLSTM: {name} of state {index} has shape {tuple(tensor.shape)}; expected {expected}"
                    )
        return states


def check_axes(model: str, x: Tensor, axes: str, channels: int) -> None:
    """Refuse an input that a model cannot read, by naming the axis; `axes` has a letter an axis, C the channels."""
    if x.dim() != len(axes):
        raise ValueError(
            f"{model}: input of shape {tuple(x.shape)} has {x.dim()} axes; expected {len(axes)}: ({', '.join(axes)})"
        )
    for index, (axis, size) in enumerate(zip(axes, x.shape, strict=True)):
        if axis == "C" and size != channels:
            raise ValueError(f"{model}: axis C (number {index}) of the input is {size}; this model takes {channels}")
        if size < 1:
            raise ValueError(f"{model}: axis {axis} (number {index}) of the input is {size}; must be 1 or more")
