import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Presence(nn.Module):
    """Tells features which images there are: (B, width, D, H, W) to the same, scaled and shifted a channel.

    `present` is (B, C), bool. Each missing image adds a scale and a shift of its own for every channel, which are zero
    before training and of no effect where all images are there: a complete case is computed as without this layer.
    It belongs after a norm: one with a channel a group would undo a shift before it, such as that of a channel of the
    image that says what is there.
    Source: FiLM, Perez et al. 2018, arXiv:1709.07871.
    """

    def __init__(self, images: int, width: int) -> None:
        super().__init__()
        # No nn.Linear: it would draw random numbers, and all weights after it would begin as others.
        self.weight = nn.Parameter(torch.zeros(2 * width, images))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """See the class."""
        change = F.linear((~present).to(self.weight.dtype), self.weight).to(x.dtype)  # bf16 knows few numbers near 1
        scale, shift = change[..., None, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


def only_present(model: str, x: Tensor, present: Tensor) -> Tensor:
    """`x` (..., C, D, H, W) with zeros for the images that `present` (..., C), bool, says are not there.

    Nothing that their channels hold, NaN even, reaches an output or a gradient. Raises ValueError for another shape.
    """
    if present.shape != x.shape[:-3] or present.dtype != torch.bool:
        raise ValueError(
            f"{model}: present is {present.dtype} of shape {tuple(present.shape)}; expected torch.bool of shape "
            f"{tuple(x.shape[:-3])}, one for each image"
        )
    # Not a product: NaN * 0 is NaN, in the output and in the gradient.
    return torch.where(present[..., None, None, None], x, torch.zeros((), dtype=x.dtype, device=x.device))
