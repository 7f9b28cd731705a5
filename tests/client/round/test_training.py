"""The local loop: what it learns from, and that devices and precisions agree."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gliofed.client.round.training import pick_device, pick_precision, train_one_round
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import travelling
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.tasks.segmentation import Segmentation

CPU = torch.device("cpu")


def balls(steps: int, size: int = 16) -> list[Batch]:
    """Bright boxes in noise, and where they are."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(steps):
        target = torch.zeros(2, 1, size, size, size)
        for sample in target:
            x, y, z = torch.randint(0, size - 6, (3,), generator=generator).tolist()
            sample[0, x : x + 6, y : y + 6, z : z + 6] = 1
        image = 2 * target + torch.randn(target.shape, generator=generator)
        batches.append(Batch(image, target))
    return batches


def train(run: RunConfig, device: torch.device, batches: list[Batch], **train: object) -> tuple[nn.Module, float]:
    model = initial_model(run)
    config = replace(run.train, **train)  # type: ignore[arg-type]
    result = train_one_round(model, iter(batches), Segmentation(), config, len(batches), device)
    return model, result.loss


def dice(model: nn.Module, device: torch.device) -> float:
    batch = balls(1)[0]
    with torch.no_grad():
        prediction = (model.eval()(batch.image.to(device)) > 0).cpu()
    return Segmentation().metrics(prediction, batch.target, ("object",), (1, 1, 1))["dice"]


def test_loss_is_the_mean_over_samples(run_config: Callable[..., RunConfig]) -> None:
    """With a learning rate of next to nothing, it is the loss of the first weights on each batch."""
    run, batches = run_config(), balls(3)
    _, loss = train(run, CPU, batches, lr=1e-12)
    model = initial_model(run).train()
    with torch.no_grad():
        expected = sum(Segmentation().loss(model(batch.image), batch.target).item() for batch in batches) / 3
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_step_is_adamw_on_the_clipped_gradient(run_config: Callable[..., RunConfig]) -> None:
    run, (batch,) = run_config(), balls(1)
    trained, _ = train(run, CPU, [batch], clip=0.1)
    model = initial_model(run).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.train.lr, weight_decay=run.train.weight_decay)
    Segmentation().loss(model(batch.image), batch.target).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert norm > 0.1  # else there was nothing to clip
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad *= 0.1 / norm
    optimizer.step()
    assert_close(travelling(trained), travelling(model), rtol=1e-4, atol=1e-6)


def test_no_batch_is_drawn_that_is_not_used(run_config: Callable[..., RunConfig]) -> None:
    """An endless iterator would otherwise move its generator one batch too far."""
    drawn = iter(balls(3))
    train_one_round(initial_model(run_config()), drawn, Segmentation(), run_config().train, 2, CPU)
    assert len(list(drawn)) == 1


@pytest.mark.parametrize("name", ["auto", "fp32", "bf16", "fp16"])
def test_a_cpu_computes_in_fp32(name: str) -> None:
    """In bf16 its gradients may be made of memory that nothing was written to."""
    assert pick_precision(name, CPU) == torch.float32


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="device=cuda:99"):
        pick_device("cuda:99")


gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: did not run")]


class TestGPU:
    """Needs a CUDA device; without one these say that they did not run."""

    pytestmark = gpu

    @pytest.mark.parametrize(("tf32", "most"), [(False, 1e-4), (True, 1e-3)])
    def test_one_round_equals_the_cpus(
        self, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tf32: bool, most: float
    ) -> None:
        """To 1e-4 in the mean: AdamW's first steps have lr's size, 3e-3, and the sign of a small gradient may flip.

        With TF32, which convolutions have by default, more signs flip: 5e-4 where a CPU rounded factors to 10 bits.
        """
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
        on_cpu, loss = train(run_config(), CPU, balls(3), precision="fp32")
        on_gpu, other = train(run_config(), torch.device("cuda"), balls(3), precision="fp32")
        assert other == pytest.approx(loss, rel=1e-3)
        pairs = zip(on_gpu.parameters(), on_cpu.parameters(), strict=True)
        difference = torch.cat([(a.detach().cpu() - b.detach()).flatten() for a, b in pairs])
        assert difference.abs().mean() < most

    @pytest.mark.parametrize("precision", ["bf16", "fp16", "auto"])
    def test_mixed_precision_learns(self, run_config: Callable[..., RunConfig], precision: str) -> None:
        device = torch.device("cuda")
        model, _ = train(run_config(), device, balls(60), precision=precision, lr=0.01)
        assert dice(model, device) > 0.8


@pytest.mark.slow
def test_fp32_learns_what_mixed_precision_should(run_config: Callable[..., RunConfig]) -> None:
    """The bar of the GPU tests, on a CPU: they ask for nothing that fp32 does not reach."""
    model, _ = train(run_config(), CPU, balls(60), lr=0.01)
    assert dice(model, CPU) > 0.8
