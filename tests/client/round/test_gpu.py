"""What a GPU is spared in the loops: waits, many small kernels, slow settings. Most of it shows without a GPU."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from private_patients import patients, private, series_model
from small_patches import lumps, rng
from torch import Tensor, nn
from torch.testing import assert_close
from waits import META, Waits

from gliofed.client.round.gpu import tuned
from gliofed.client.round.privacy import Plan
from gliofed.client.round.training import train_one_round
from gliofed.shared.algorithms import FEDAVG
from gliofed.shared.algorithms.groups import Groups, Local
from gliofed.shared.algorithms.moments import load_moments, read_moments
from gliofed.shared.algorithms.optimizers import ADAMW
from gliofed.shared.config import PRESETS, AugmentConfig, RunConfig
from gliofed.shared.data.draw import Pick, draw
from gliofed.shared.data.samples import Batch
from gliofed.shared.models import MODELS
from gliofed.shared.tasks import TASKS

Config = Callable[..., RunConfig]
CUDA = torch.device("cuda")


def settings() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark


def test_a_gpu_is_tuned_while_it_trains_and_a_cpu_never() -> None:
    """The settings are the process's: an evaluation after it, whose volumes differ in size, must not tune for each."""
    before = settings()
    with tuned(torch.device("cpu")):
        assert settings() == before == ("highest", False)
    with pytest.raises(KeyError), tuned(CUDA):
        assert settings() == ("high", True)
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        raise KeyError
    assert settings() == before


def batch_of(name: str, device: torch.device) -> Batch:
    kind, size = MODELS[name], (16, 16, 16)
    image = torch.rand(2, *([3] if kind.series else []), 4, *size, device=device)
    if kind.task == "grading":
        # Without `present`: the model checks that every sample has a modality, which reads from the GPU at each step.
        return Batch(image, torch.ones(2, 1, device=device), weight=torch.ones(2, device=device))
    return Batch(image, (image[..., :3, :, :, :] > 0.9).float())


def built(name: str) -> nn.Module:
    kind = MODELS[name]
    return kind(4, 1 if kind.task == "grading" else 3, PRESETS["tiny"])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_no_step_waits_for_the_gpu(run_config: Config, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One read, of the loss, and that is after the last step: a GPU that must wait for its host idles meanwhile."""
    monkeypatch.setattr(torch, "autocast", lambda *options, **more: nullcontext())  # meta has none, not even turned off
    train, batch = replace(run_config().train, clip=1.0, precision="fp32"), batch_of(name, META)
    model = built(name).to(META)
    with Waits() as waits:
        train_one_round(model, [batch] * 3, TASKS[MODELS[name].task], train, 3, META)
    assert waits.found == ["aten._local_scalar_dense"]


def test_a_private_step_does_not_either(run_config: Config) -> None:
    """On a CPU, where a generator can be, so copies do not show. Opacus draws the patients of a step on any CPU."""
    run, plan = run_config("privacy=dp_sgd"), Plan(sigma=1.0, rate=0.7, steps=3, lr=0.1)
    with Waits(torch.device("cpu")) as waits:
        private(series_model(), run, plan, patients(4))
    assert waits.found == ["aten.nonzero"] * plan.steps


@pytest.mark.parametrize("series", [True, False])
def test_no_change_of_a_patch_waits(run_config: Config, tmp_path: Path, series: bool) -> None:
    """Noise aside, whose generator device meta lacks. What was drawn is copied without a wait."""
    run = run_config("data.patch=[9,8,7]", "data.window=2")
    augment = AugmentConfig(chance=0.6, rotation=25, scaling=0.2, bias=0.3, gamma=0.3, dropout=0.3)
    picks = [Pick(patient, rng(place), 1.0) for place, patient in enumerate(lumps(tmp_path, 8))]
    drawn = draw(picks, run.data, replace(run.train, augment=augment), "series" if series else "visits")
    assert all(any(getattr(each, name) is not None for each in drawn.changes) for name in ("matrix", "bias", "gamma"))
    blocks = Batch(drawn.blocks.image.to(META), drawn.blocks.target.to(META))  # from pinned memory, which meta lacks
    with Waits() as waits:
        replace(drawn, blocks=blocks).to(META)
    assert waits.found == []


def test_the_waits_are_seen() -> None:
    """Each thing that does wait is named, or the tests above would prove nothing."""
    x, mask = torch.rand(4, device=META), torch.ones(4, dtype=torch.bool, device=META)
    for wait in (x.sum().item, mask.nonzero, lambda: x[mask], lambda: torch.ones(4).to(META), x.cpu):
        with Waits() as waits, suppress(NotImplementedError):  # meta has no values to count or to copy
            wait()
        assert waits.found
    with Waits() as waits:
        torch.ones(4).to(META, non_blocking=True)
    assert waits.found == []


def fused(weight: nn.Parameter) -> torch.optim.AdamW:
    return torch.optim.AdamW([weight], lr=0.1, fused=True)


def test_moments_go_on_in_a_fused_adamw() -> None:
    """Two rounds of two steps are four; a GPU's is fused, and PyTorch has that on a CPU too."""
    gradients = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) - 0.5

    def trained(rounds: int, make: Callable[[nn.Parameter], torch.optim.AdamW]) -> Tensor:
        weight, kept = nn.Parameter(torch.ones(5)), Groups()
        for own in gradients.chunk(rounds):
            stepper = make(weight)
            local = Local(config=FEDAVG, optimizer=replace(ADAMW, moments="kept"), steps=len(own), rate=0.1, kept=kept)
            load_moments(stepper, {"w": weight}, local)
            for gradient in own:
                weight.grad = gradient
                stepper.step()
            _, kept = read_moments(stepper, {"w": weight}, local)
        return weight.detach()

    assert_close(trained(2, fused), trained(1, fused), rtol=0, atol=0)
    assert_close(trained(2, fused), trained(1, lambda weight: torch.optim.AdamW([weight], lr=0.1)))


def test_a_fused_adamw_counts_its_steps_where_the_weights_are() -> None:
    """Elsewhere it would refuse them: any other counts on the CPU."""
    weight = nn.Parameter(torch.ones(5, device=META))
    kept = {name: {"w": torch.zeros(5, device=META)} for name in ("exp_avg", "exp_avg_sq")}
    kept["step"] = {"w": torch.tensor(3.0)}
    local = Local(config=FEDAVG, optimizer=replace(ADAMW, moments="kept"), steps=1, rate=0.1, kept=kept)
    for stepper, device in ((fused(weight), META), (torch.optim.AdamW([weight]), torch.device("cpu"))):
        load_moments(stepper, {"w": weight}, local)
        assert stepper.state[weight]["step"].device == device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: did not run")
class TestGPU:
    """Needs a CUDA device; without one these say that they did not run."""

    @pytest.mark.parametrize("name", MODELS)
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_no_step_waits(self, run_config: Config, name: str, precision: str) -> None:
        """PyTorch itself names what waits; the first step also loads libraries, and the last is read."""
        train, batch, steps = replace(run_config().train, clip=1.0, precision=precision), batch_of(name, CUDA), 5

        def batches() -> Iterator[Batch]:
            for step in range(steps):
                torch.cuda.set_sync_debug_mode("error" if 0 < step < steps - 1 else "default")
                yield batch

        try:
            train_one_round(built(name), batches(), TASKS[MODELS[name].task], train, steps, CUDA)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_no_change_of_a_patch_waits(self, run_config: Config, tmp_path: Path) -> None:
        """All changes, noise too, from pinned memory."""
        run = run_config("data.patch=[9,8,7]")
        augment = AugmentConfig(chance=0.6, rotation=25, scaling=0.2, noise=0.2, bias=0.3, gamma=0.3, dropout=0.3)
        train = replace(run.train, augment=augment)
        people = lumps(tmp_path, 8)

        def made(seed: int) -> Batch:
            picks = [Pick(patient, rng(seed + place), 1.0) for place, patient in enumerate(people)]
            return draw(picks, run.data, train, "visits", pinned=True).to(CUDA)

        made(0)
        try:
            torch.cuda.set_sync_debug_mode("error")
            made(8)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_moments_go_on(self, run_config: Config) -> None:
        """Two rounds of two steps are four, to the rounding of a GPU: the steps are counted in the GPU's memory."""
        batch, train = batch_of("unet", CUDA), replace(run_config().train, precision="fp32")

        def trained(rounds: int) -> nn.Module:
            torch.manual_seed(0)
            model, kept, steps = built("unet"), Groups(), 4 // rounds
            for _ in range(rounds):
                optimizer = replace(ADAMW, moments="kept")
                local = Local(config=FEDAVG, optimizer=optimizer, steps=steps, rate=1e-3, kept=kept)
                kept = train_one_round(model, [batch] * steps, TASKS["segmentation"], train, steps, CUDA, local).kept
            assert all(step.is_cuda and step.item() == 4 for step in kept["step"].values())
            return model

        pairs = zip(trained(2).parameters(), trained(1).parameters(), strict=True)
        difference = torch.cat([(one - other).detach().flatten() for one, other in pairs])
        assert difference.abs().mean() < 1e-4  # fresh moments would be off by about 1e-3, a step
