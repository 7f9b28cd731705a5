import torch
from torch import Tensor, nn


class ChannelDropout(nn.Module):
    """Drops whole channels in training: (B, C, ...) to the same, each channel of each sample zero with chance `rate`.

    The others are divided by 1 - rate, so that the mean stays. In evaluation it does nothing, and it has no state to
    save. As nn.Dropout3d, but for its generator: PyTorch's own is the whole process's, in which sites may work side by
    side. `seed_dropout` gives it one; without it draws from PyTorch's.
    Source: Tompson et al. 2015, arXiv:1411.4280, section 3.2 (spatial dropout): neighbouring voxels of a map are so
    alike that dropping single ones leaves what they say.
    """

    generator: torch.Generator | None = None

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if not self.training:
            return x
        kept = torch.rand(x.shape[:2], generator=self.generator, device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate)).reshape(*kept.shape, *[1] * (x.dim() - 2))


def seed_dropout(model: nn.Module, seed: int, device: torch.device) -> None:
    """Let all dropout of a model on `device` draw from one generator of its own, anew from `seed`."""
    layers = [module for module in model.modules() if isinstance(module, ChannelDropout)]
    generator = torch.Generator(device).manual_seed(seed) if layers else None
    for layer in layers:
        layer.generator = generator
