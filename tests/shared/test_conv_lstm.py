import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from gliofed.shared.models.conv_lstm import ConvLSTM, ConvLSTMLayer


def slow_layer(layer, x, h, c):
    """The formula, gate by gate, frame by frame, with a hidden convolution on zeros too."""
    n, light = layer.hidden, layer.light
    wx, wh, b = layer.input_gates.weight, layer.hidden_gates.weight, layer.input_gates.bias

    def gate(k, frame, h):
        rows = slice(k * n, (k + 1) * n)
        # Depthwise: channel j of every gate sees h[j] alone; torch keeps its four kernels in rows 4j to 4j+3.
        hidden = wh[k::4] if light else wh[rows]
        return F.conv3d(frame, wx[rows], b[rows], padding=wx.shape[-1] // 2) + F.conv3d(
            h, hidden, padding=wh.shape[-1] // 2, groups=n if light else 1
        )

    outputs = []
    frames = range(x.shape[1])
    for t in reversed(frames) if layer.reverse else frames:
        i, f, o = (torch.sigmoid(gate(k, x[:, t], h)) for k in range(3))
        c = f * c + i * torch.tanh(gate(3, x[:, t], h))
        h = o * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs[::-1] if layer.reverse else outputs, dim=1), (h, c)


def slow(model, x, states):
    finals = []
    for first in range(0, len(model.layers), model.directions):
        runs = [slow_layer(model.layers[k], x, *states[k]) for k in range(first, first + model.directions)]
        x = torch.cat([output for output, _ in runs], dim=2)
        finals += [final for _, final in runs]
    return x, finals


def gradients(model, x, states, forward):
    output, finals = forward(x, states)
    # Squares, so that every output voxel and every state weighs differently.
    loss = output.square().sum() + sum(3 * h.square().sum() + 5 * c.square().sum() for h, c in finals)
    return output, finals, torch.autograd.grad(loss, [x, *model.parameters()])


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (1, True), (2, True)])
@pytest.mark.parametrize("started", [False, True])
def test_equals_the_formula(light, layers, bidirectional, started):
    """Hoisting, the skipped first hidden convolution and joined gates may not change value or gradient."""
    torch.manual_seed(0)
    model = ConvLSTM(2, 3, layers=layers, light=light, bidirectional=bidirectional)
    x = torch.randn(2, 3, 2, 3, 4, 5, requires_grad=True)  # sides differ: a swapped axis shows
    zeros = [(torch.zeros(2, 3, 3, 4, 5), torch.zeros(2, 3, 3, 4, 5)) for _ in model.layers]
    states = [(torch.randn_like(h), torch.randn_like(c)) for h, c in zeros] if started else None
    fast = gradients(model, x, states, model)
    exact = gradients(model, x, states or zeros, lambda x, states: slow(model, x, states))
    assert_close(fast, exact, rtol=1e-5, atol=1e-5)


def test_final_states_continue_a_series():
    """Reading 5 frames equals reading 2, then 3 from where those ended: lstm_unet keeps states between iterations."""
    torch.manual_seed(0)
    model, x = ConvLSTM(2, 3, layers=2), torch.randn(1, 5, 2, 4, 4, 4)
    whole, whole_states = model(x)
    early, states = model(x[:, :2])
    late, late_states = model(x[:, 2:], states)
    assert_close(torch.cat([early, late], dim=1), whole)
    assert_close(late_states, whole_states)


def test_only_both_directions_see_the_future():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 2, 4, 4, 4)
    changed = torch.cat([x[:, :2], -x[:, 2:]], dim=1)  # another last frame
    for bidirectional in (False, True):
        model = ConvLSTM(2, 3, bidirectional=bidirectional)
        seen = not torch.equal(model(x)[0][:, :2], model(changed)[0][:, :2])
        assert seen == bidirectional


def test_starts_remembering():
    """Forget bias 1, others 0: a new cell keeps sigmoid(1) = .73 of its state a frame, not a half."""
    bias = ConvLSTMLayer(2, 3).input_gates.bias
    assert bias.tolist() == [0] * 3 + [1] * 3 + [0] * 6  # i, f, o, g


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 4, 4, 4), r"has 5 axes; expected 6: \(B, T, C, D, H, W\)"),
        ((1, 2, 5, 4, 4, 4), r"axis C \(number 2\) of the input is 5; this model takes 2"),
        ((1, 0, 2, 4, 4, 4), r"axis T \(number 1\) of the input is 0"),
    ],
)
def test_refuses_a_wrong_input(shape, message):
    with pytest.raises(ValueError, match=message):
        ConvLSTM(2, 3)(torch.zeros(shape))


def test_refuses_wrong_states_and_options():
    x, state = torch.zeros(1, 2, 2, 4, 4, 4), torch.zeros(1, 3, 4, 4, 4)
    with pytest.raises(ValueError, match="2 states; expected 1"):
        ConvLSTM(2, 3)(x, [(state, state)] * 2)
    with pytest.raises(ValueError, match=r"c of state 0 has shape \(2, 3, 4, 4, 4\); expected \(1, 3, 4, 4, 4\)"):
        ConvLSTM(2, 3)(x, [(state, state.repeat(2, 1, 1, 1, 1))])
    with pytest.raises(ValueError, match="layers=0"):
        ConvLSTM(2, 3, layers=0)
    with pytest.raises(ValueError, match="kernel=2"):
        ConvLSTM(2, 3, kernel=2)
