from typing import ClassVar

import torch
from torch import Tensor, nn


class Draws(nn.Module):
    """A layer, or a model, that draws random numbers in training from a generator of its own."""

    generator: torch.Generator | None = None
    """`seed_layers` sets it."""
    on_cpu: ClassVar[bool] = False
    """Whether its numbers are drawn on the CPU, where they are needed, so that a GPU is not waited for."""


class ChannelDropout(Draws):
    """Drops whole channels in training: (B, C, ...) to the same, each channel of each sample zero with chance `rate`.

    The others are divided by 1 - rate, so that the mean stays. In evaluation it does nothing, and it has no state to
    save. As nn.Dropout3d, but for its generator: PyTorch's own is the whole process's, in which sites may work side by
    side. Without one of its own it draws from PyTorch's.
    Source: Tompson et al. 2015, arXiv:1411.4280, section 3.2 (spatial dropout): neighbouring voxels of a map are so
    alike that dropping single ones leaves what they say.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not self.training:
            return x
        kept = torch.rand(x.shape[:2], generator=self.generator, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate)).reshape(*kept.shape, *[1] * (x.dim() - 2))


def seed_layers(model: nn.Module, seed: int, device: torch.device) -> None:
    """Let all that draws in a model on `device` draw anew from `seed`: one generator there, and one on the CPU."""
    there, on_cpu = (torch.Generator(place).manual_seed(seed) for place in (device, torch.device("cpu")))
    for module in model.modules():
        if isinstance(module, Draws):
            module.generator = on_cpu if module.on_cpu else there
