import copy

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from gliofed.shared.models.dropout import seed_layers
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


def slow_memory(memory, x, states, name):
    """The formula of Memory with states that are never None, all gates of one matrix."""
    h, c = states.get(name, (torch.zeros_like(x), torch.zeros_like(x)))
    seen = norm_relu(x + F.conv3d(h, memory.hidden.weight, padding=1), memory.norm)
    weight = torch.cat([gate.weight for gate in memory.gates])
    i, f, o, g = F.conv3d(seen, weight, torch.cat([gate.bias for gate in memory.gates])).chunk(4, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    states[name] = (o.sigmoid() * c.tanh(), c)
    return states[name][0]


def slow(model, x, iterations):
    """Everything again in every iteration, of concatenated inputs; the mask is zero at first. Logits of the last."""
    mask, states = x.new_zeros(len(x), 3, *(edge // 2 for edge in x.shape[2:])), {}
    for _ in range(iterations):
        mask, states = mask.detach(), {name: (h.detach(), c.detach()) for name, (h, c) in states.items()}
        fine = conv_norm_relu(conv_norm_relu(x, model.stem[0], model.stem[1]), model.stem[3], model.stem[4])
        joined = torch.cat([F.max_pool3d(fine, 2), mask], dim=1)
        weight = torch.cat([model.image.weight, model.feedback.weight], dim=1)
        features = [slow_memory(model.first, F.conv3d(joined, weight, padding=1), states, "first")]
        for n, level in enumerate(model.down):
            smaller = F.conv3d(F.max_pool3d(features[-1], 2), level.convolution.weight, padding=1)
            features.append(slow_memory(level.memory, smaller, states, f"down{n}"))
        h = features[-1]
        for n, up in enumerate(model.up):
            joined = torch.cat([features[-2 - n], doubled(F.conv3d(h, up.narrow.weight))], dim=1)
            h = slow_memory(up.memory, F.conv3d(joined, up.merge.weight, padding=1), states, f"up{n}")
        half = F.conv3d(h, model.coarse.weight, model.coarse.bias)
        mask = half.sigmoid()
    joined = torch.cat([fine, doubled(F.conv3d(h, model.last.narrow.weight))], dim=1)
    weight = torch.cat([model.skip.weight, model.last.merge.weight], dim=1)
    full = norm_relu(F.conv3d(joined, weight, padding=1), model.last.norm)
    return torch.stack([doubled(half), F.conv3d(full, model.head.weight, model.head.bias)], dim=1)


def doubled(x):
    return F.interpolate(x, scale_factor=2, mode="trilinear")


@pytest.mark.parametrize("iterations", [1, 3])
def test_equals_the_unrolled_loop(iterations):
    """The image's share computed once, states that start as None, an end of its own: none may change value or gradient.

    The oracle cuts the gradient where an iteration begins; the model makes all but the last without one.
    """
    model, x = demo((4, 8, 16), iterations=iterations).double(), image(8, 4, 12, batch=2).double()
    weights = torch.randn(2, 2, 3, 8, 4, 12, dtype=torch.float64)  # every output counts differently
    results = []
    for output in (model(x), slow(model, x, iterations)):
        gradients = torch.autograd.grad((weights * output).sum(), list(model.parameters()), materialize_grads=True)
        results.append((output, gradients))
    assert_close(*results, rtol=1e-9, atol=1e-9)
    assert_close(model.eval()(x), results[1][0][:, 1])


def masks_at(model, x, iterations):
    """Logits in eval mode after each number of iterations, (B, K, regions, D, H, W)."""
    model.eval()
    every = []
    for model.iterations in range(1, iterations + 1):
        every.append(model(x).detach())
    return torch.stack(every, dim=1)


def test_training_gives_two_guesses_and_eval_the_finer():
    model, x = demo(), image(8, 8, 8, batch=2)
    both = model(x)
    assert both.shape == (2, 2, 3, 8, 8, 8)
    assert torch.equal(model.eval()(x), both[:, 1])


@pytest.mark.parametrize("size", [(8, 12, 16), (7, 9, 10), (1, 2, 3)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_comes_back(size, batch):
    model, x = demo(stop_when_stable=True), image(*size, batch=batch)
    both = model(x)
    assert both.shape == (batch, 2, 3, *size)
    assert both.isfinite().all()
    assert model.eval()(x).shape == (batch, 3, *size)


def test_the_mask_is_fed_back():
    """The original's feedback was dead when its graph was built. Without it only the first iteration is the same."""
    model, x = demo(), image(8, 8, 8)
    fed = masks_at(model, x, 3)
    torch.nn.init.zeros_(model.feedback.weight)
    unfed = masks_at(model, x, 3)
    assert torch.equal(fed[:, 0], unfed[:, 0])
    assert all((fed[:, k] - unfed[:, k]).abs().max() > 1e-3 for k in (1, 2))


def test_the_states_go_on():
    """The original ran its ConvLSTMs for one step each, so that their recurrent kernels were dead."""
    model, x = demo(), image(8, 8, 8)
    torch.nn.init.zeros_(model.feedback.weight)  # nothing but the states tells the iterations apart now
    every = masks_at(model, x, 3)
    assert all((every[:, k] - every[:, k - 1]).abs().max() > 1e-3 for k in (1, 2))
    for name, module in model.named_modules():
        if name.endswith("hidden"):
            old = module.weight.detach().clone()
            torch.nn.init.zeros_(module.weight)
            changed = masks_at(model, x, 2)
            assert torch.equal(changed[:, 0], every[:, 0])  # h is zero there
            assert not torch.equal(changed[:, 1], every[:, 1]), name
            module.load_state_dict({"weight": old})


def iterations_of(model, x):
    """How many iterations a call made."""
    calls = []
    handle = model.first.register_forward_hook(lambda *_: calls.append(1))
    model(x)
    handle.remove()
    return len(calls)


def test_training_draws_the_number_of_iterations():
    """Each from 1 to K, from the seed alone: sites that train side by side share PyTorch's own generator."""
    model, x = demo(iterations=4), image(4, 4, 4)
    assert {iterations_of(model, x) for _ in range(8)} == {4}  # without a seed all
    rows = []
    for seed in (0, 0, 1):
        seed_layers(model, seed, torch.device("cpu"))
        state = torch.get_rng_state()
        rows.append([iterations_of(model, x) for _ in range(40)])
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(9)
    assert rows[0] == rows[1] != rows[2]
    assert {*rows[0]} == {1, 2, 3, 4}
    model.eval()
    assert {iterations_of(model, x) for _ in range(8)} == {4}


def test_autocast_keeps_the_gradients():
    """It keeps weights that it cast: those of an iteration without gradients must not stand in for the last one's."""
    results = []
    for keeps in (True, False):  # of smaller images, bf16 gradients on some CPUs hold whatever was in memory
        model = demo()
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=keeps):
            logits = model(image(16, 16, 16))
        results.append(torch.autograd.grad(logits.float().square().mean(), list(model.parameters())))
    assert_close(*results, rtol=0, atol=0)


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
    """Each patient alone, from its logits at half and at full resolution after every number of iterations."""
    most, model.stop_when_stable = model.iterations, False
    chosen, counts, halves = [], [], []
    handle = model.coarse.register_forward_hook(lambda _, __, logits: halves.append(logits))
    for patient in x.split(1):
        halves.clear()
        full = masks_at(model, patient, most)
        half = [logits[..., :3, :4, :4] > 0 for logits in halves[-most:]]  # of 6 x 7 x 8 voxels, padded to 8
        k = next((k for k in range(1, most) if torch.equal(half[k], half[k - 1])), most - 1)
        chosen.append(full[:, k])
        counts.append(k + 1)
    handle.remove()
    model.iterations, model.stop_when_stable = most, True
    return torch.cat(chosen), counts


def test_stops_when_no_voxel_changes_patient_by_patient():
    """Four contrasts, and a bias with voxels on both sides of 0: patients that end at different iterations."""
    model = demo(iterations=10, stop_when_stable=True).double().eval()  # in floats 10 iterations let rounding grow
    x = image(6, 7, 8, batch=4).double() * torch.tensor([1.0, 0.3, 10.0, 0.03]).view(-1, 1, 1, 1, 1)
    torch.nn.init.constant_(model.coarse.bias, 0.1)
    expected, counts = slow_stop(model, x)
    assert counts == [7, 8, 8, 6]  # or the test would say nothing
    output, sizes = counted(model, x)
    assert_close(output, expected)
    assert sizes == [sum(count > k for count in counts) for k in range(max(counts))]  # no iteration too many
    for patient in range(4):
        assert_close(model(x[patient : patient + 1]), output[patient : patient + 1])  # whoever else is there


def test_a_stable_mask_stops_at_the_second_iteration():
    """Far from 0 no voxel changes: then stopping costs nothing of the mask and saves the rest."""
    model, x = demo(iterations=6, stop_when_stable=True).eval(), image(8, 8, 8)
    for head in (model.coarse, model.head):
        torch.nn.init.constant_(head.bias, -50.0)
    early, sizes = counted(model, x)
    assert sizes == [1, 1]
    model.stop_when_stable = False
    late, sizes = counted(model, x)
    assert sizes == [1] * 6
    assert torch.equal(early > 0, late > 0)
    model.stop_when_stable = True
    assert iterations_of(model.train(), x) == 6  # training never stops early: its number is drawn


def test_patients_do_not_mix():
    model, x = demo(), image(8, 8, 8, batch=3)
    assert_close(model(x)[1:2], model(x[1:2]))


def test_gradient_reaches_every_parameter_and_no_operation_is_in_place():
    model, x = demo(iterations=2), image(8, 8, 8)
    twin, before = copy.deepcopy(model), x.clone()
    model(x).square().mean().backward()
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
