import copy

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from gliofed.shared.config import PRESETS
from gliofed.shared.models.lstm_unet import LSTMUNet3D


def demo(widths=(8, 16, 32), **options):
    torch.manual_seed(0)
    return LSTMUNet3D(2, 3, widths, **options)


def image(*size, batch=1):
    torch.manual_seed(1)
    return torch.randn(batch, 2, *size)


def norm_relu(x, norm):
    groups = x.unflatten(1, (norm.num_groups, -1))
    centred = groups - groups.mean(dim=(2, 3, 4, 5), keepdim=True)
    x = (centred / (centred.square().mean(dim=(2, 3, 4, 5), keepdim=True) + norm.eps).sqrt()).flatten(1, 2)
    return (x * norm.weight.view(-1, 1, 1, 1) + norm.bias.view(-1, 1, 1, 1)).clamp(min=0)


def conv_norm_relu(x, conv, norm):
    return norm_relu(F.conv3d(x, conv.weight, padding=conv.weight.shape[-1] // 2), norm)


def slow_cell(lstm, x, state):
    """Shi et al.'s formula, gate by gate; the state is never None."""
    (h, c), n, pre = state, lstm.hidden, []
    for gate in range(4):
        rows = slice(gate * n, gate * n + n)
        hidden = lstm.hidden_gates.weight[gate::4] if lstm.light else lstm.hidden_gates.weight[rows]
        weight = lstm.input_gates.weight[rows]
        from_input = F.conv3d(x, weight, lstm.input_gates.bias[rows], padding=weight.shape[-1] // 2)
        pre.append(from_input + F.conv3d(h, hidden, padding=1, groups=n if lstm.light else 1))
    i, f, o = (p.sigmoid() for p in pre[:3])
    c = f * c + i * pre[3].tanh()
    return o * c.tanh(), c


def slow_memory(memory, x, states, name):
    x = norm_relu(x, memory.norm)
    zeros = torch.zeros_like(x)
    states[name] = slow_cell(memory.lstm, x, states.get(name, (zeros, zeros)))
    return states[name][0]


def slow(model, x, iterations):
    """Everything again in every iteration, of concatenated inputs; the mask is zero at first."""
    mask, states, every = x.new_zeros(len(x), 3, *x.shape[2:]), {}, []
    for _ in range(iterations):
        fine = conv_norm_relu(conv_norm_relu(x, model.stem[0], model.stem[1]), model.stem[3], model.stem[4])
        fed = F.conv3d(F.pad(mask, (1,) * 6), model.feedback.weight, stride=2)
        first = F.conv3d(F.max_pool3d(fine, 2), model.image.weight, padding=1) + fed
        features = [slow_memory(model.first, first, states, "first")]
        for n, level in enumerate(model.down):
            smaller = F.conv3d(F.max_pool3d(features[-1], 2), level.convolution.weight, padding=1)
            features.append(slow_memory(level.memory, smaller, states, f"down{n}"))
        coarse = features[-1]
        for n, up in enumerate(model.up):
            joined = torch.cat([features[-2 - n], doubled(coarse, up.narrow)], dim=1)
            coarse = slow_memory(up.memory, F.conv3d(joined, up.merge.weight, padding=1), states, f"up{n}")
        joined = torch.cat([fine, doubled(coarse, model.last.narrow)], dim=1)
        weight = torch.cat([model.skip.weight, model.last.merge.weight], dim=1)
        full = norm_relu(F.conv3d(joined, weight, padding=1), model.last.norm)
        every.append(F.conv3d(full, model.head.weight, model.head.bias))
        mask = every[-1].sigmoid()
    return torch.stack(every, dim=1)


def doubled(x, narrow):
    return F.interpolate(F.conv3d(x, narrow.weight), scale_factor=2, mode="trilinear")


@pytest.mark.parametrize("light", [True, False])
def test_equals_the_unrolled_loop(light):
    """The image's share computed once, states that start as None, joined gates: none may change value or gradient."""
    model, x = demo((4, 8, 16), light=light).double(), image(8, 4, 12, batch=2).double()
    weights = torch.randn(2, 3, 3, 8, 4, 12, dtype=torch.float64)  # every output counts differently
    results = []
    for output in (model(x), slow(model, x, 3)):
        results.append((output, torch.autograd.grad((weights * output).sum(), list(model.parameters()))))
    assert_close(*results, rtol=1e-9, atol=1e-9)


def test_parameter_counts():
    """Millions, at 4 modalities and 3 regions: a change of design shows here first."""
    for light, millions in ((True, (0.053, 0.198, 0.752, 2.93, 11.5)), (False, (None, 1.59, 6.36, 25.4, 101.7))):
        for widths, million in zip(PRESETS.values(), millions, strict=True):
            with torch.device("meta"):
                model = LSTMUNet3D(4, 3, widths, light=light)
            if million is not None:
                assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(million, rel=0.03)


def test_training_gives_every_iteration_and_eval_the_last():
    model, x = demo(), image(8, 8, 8, batch=2)
    every = model(x)
    assert every.shape == (2, 3, 3, 8, 8, 8)
    assert torch.equal(model.eval()(x), every[:, -1])


@pytest.mark.parametrize("size", [(8, 12, 16), (7, 9, 10), (1, 2, 3)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_comes_back(size, batch):
    model, x = demo(), image(*size, batch=batch)
    every = model(x)
    assert every.shape == (batch, 3, 3, *size)
    assert every.isfinite().all()
    assert model.eval()(x).shape == (batch, 3, *size)


def test_the_mask_is_fed_back():
    """The original's feedback was dead when its graph was built. Without it only the first iteration is the same."""
    model, x = demo(), image(8, 8, 8)
    fed = model(x)
    torch.nn.init.zeros_(model.feedback.weight)
    unfed = model(x)
    assert torch.equal(fed[:, 0], unfed[:, 0])
    assert all((fed[:, k] - unfed[:, k]).abs().max() > 1e-3 for k in (1, 2))


def test_the_states_go_on():
    """The original ran its ConvLSTMs for one step each, so that their recurrent kernels were dead."""
    model, x = demo(), image(8, 8, 8)
    torch.nn.init.zeros_(model.feedback.weight)  # nothing but the states tells the iterations apart now
    every = model(x)
    assert all((every[:, k] - every[:, k - 1]).abs().max() > 1e-3 for k in (1, 2))
    for name, module in model.named_modules():
        if name.endswith("hidden_gates"):
            old = module.weight.detach().clone()
            torch.nn.init.zeros_(module.weight)
            changed = model(x)
            assert torch.equal(changed[:, 0], every[:, 0])  # h is zero there
            assert not torch.equal(changed[:, 1], every[:, 1]), name
            module.load_state_dict({"weight": old})


def test_iterations_may_be_changed_after_training():
    """A longer run begins as a shorter one: more iterations need no new weights."""
    model, x = demo(iterations=2), image(8, 8, 8)
    two = model(x)
    model.iterations = 5
    assert torch.equal(model(x)[:, :2], two)
    model.iterations = 1
    assert torch.equal(model(x), two[:, :1])


@pytest.mark.parametrize("wrong", [0, -1])
def test_refuses_no_iterations(wrong):
    model = demo()
    with pytest.raises(ValueError, match=rf"model.iterations={wrong}: must be 1 or more"):
        model.iterations = wrong
    with pytest.raises(ValueError, match=rf"model.iterations={wrong}: must be 1 or more"):
        demo(iterations=wrong)


def counted(model, x):
    """The output, and how many patients went into each iteration."""
    sizes = []
    handle = model.first.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    output = model(x)
    handle.remove()
    return output, sizes


def slow_stop(model, x):
    """Each patient alone, from the logits of all iterations."""
    chosen, counts = [], []
    for patient in model.train()(x).detach().split(1):
        masks = [(patient[:, k] > 0) for k in range(model.iterations)]
        k = next((k for k in range(1, len(masks)) if torch.equal(masks[k], masks[k - 1])), len(masks) - 1)
        chosen.append(patient[:, k])
        counts.append(k + 1)
    model.eval()
    return torch.cat(chosen), counts


def test_stops_when_no_voxel_changes_patient_by_patient():
    """Four contrasts, and a bias with voxels on both sides of 0: patients that end at different iterations."""
    model = demo(iterations=10, stop_when_stable=True).double()  # in floats 10 iterations let rounding grow
    x = image(6, 7, 8, batch=4).double() * torch.tensor([1.0, 0.3, 10.0, 0.03]).view(-1, 1, 1, 1, 1)
    torch.nn.init.constant_(model.head.bias, -1.0)
    expected, counts = slow_stop(model, x)
    assert counts == [3, 2, 2, 4]  # or the test would say nothing
    output, sizes = counted(model, x)
    assert_close(output, expected)
    assert sizes == [sum(count > k for count in counts) for k in range(max(counts))]  # no iteration too many
    for patient in range(4):
        assert_close(model(x[patient : patient + 1]), output[patient : patient + 1])  # whoever else is there


def test_a_stable_mask_stops_at_the_second_iteration():
    """Far from 0 no voxel changes: then stopping costs nothing of the mask and saves the rest."""
    model, x = demo(iterations=6, stop_when_stable=True).eval(), image(8, 8, 8)
    torch.nn.init.constant_(model.head.bias, -50.0)
    early, sizes = counted(model, x)
    assert sizes == [1, 1]
    model.stop_when_stable = False
    late, sizes = counted(model, x)
    assert sizes == [1] * 6
    assert torch.equal(early > 0, late > 0)
    model.stop_when_stable = True
    assert model.train()(x).shape[1] == 6  # training never stops early: each iteration has its loss


def test_patients_do_not_mix():
    model, x = demo(), image(8, 8, 8, batch=3)
    assert_close(model(x)[1:2], model(x[1:2]))


@pytest.mark.parametrize("light", [True, False])
def test_gradient_reaches_every_parameter_and_no_operation_is_in_place(light):
    model, x = demo(iterations=2, light=light), image(8, 8, 8)
    twin, before = copy.deepcopy(model), x.clone()
    model(x)[:, -1].square().mean().backward()  # the last alone: through feedback and states to all
    assert torch.equal(x, before)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None for p in twin.parameters())
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    assert not list(model.buffers())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8, 8, 8), r"LSTMUNet3D: .* has 4 axes; expected 5"),
        ((1, 1, 8, 8, 8), r"axis C \(number 1\) of the input is 1; this model takes 2"),
        ((1, 2, 8, 8, 0), r"axis W \(number 4\) of the input is 0; must be 1 or more"),
    ],
)
def test_refuses_a_wrong_input(shape, message):
    with pytest.raises(ValueError, match=message):
        demo()(torch.zeros(shape))
