"""How each tensor travels, to the sites and back. PyTorch is not imported here: configurations are read without it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Codec:
    """One way to code a tensor."""

    dtype: str
    """Name in torch of the type that travels."""
    encode: "Callable[[Tensor], tuple[Tensor, float]]"
    """fp32 of any shape -> the same shape in `dtype`, and the tensor's scale."""
    decode: "Callable[[Tensor, float], Tensor]" = lambda tensor, scale: tensor.float() * scale
    """Inverse, to fp32."""
    encode_root: "Callable[[Tensor], tuple[Tensor, float]] | None" = None
    """What `encode` is for roots, as which values that cannot be negative travel: they span twice the decades that this
    type does. None: they travel as they are."""
    sent: "Codec | None" = None
    """How weights, and what goes beside them, travel to the sites that train from them. None: in fp32."""
    moments: "Codec | None" = None
    """How moments of an optimiser travel, both ways. None: as this."""


def half(tensor: "Tensor") -> "tuple[Tensor, float]":
    """Rounded to 11 bits, with one scale a tensor, a power of two that leaves no value too large or too small.

    >>> from torch import tensor
    >>> half(tensor([3.0, 1e-8]))
    (tensor([2.4576e+04, 8.1897e-05], dtype=torch.float16), 0.0001220703125)
    """
    largest = tensor.abs().max().item() if tensor.numel() else 0.0
    if not 0 < largest < math.inf:
        return tensor.half(), 1.0
    scale = 2.0 ** max(LEAST_POWER, math.frexp(largest)[1] - 15)
    return (tensor / scale).half(), scale


LEAST_POWER = -100
"""Of two, for a scale that fp32 holds."""


def int8(tensor: "Tensor") -> "tuple[Tensor, float]":
    """Symmetric, one scale a tensor: the error of a value is at most half a 127th of the largest.

    >>> from torch import tensor
    >>> int8(tensor([127.0, -0.4, 63.6]))
    (tensor([127,   0,  64], dtype=torch.int8), 1.0)
    """
    scale = tensor.abs().max().item() / 127 if tensor.numel() else 0.0
    if not 0 < scale < float("inf"):  # all zero, or not finite: the scale alone says it
        return tensor.new_zeros(tensor.shape).char(), scale
    return (tensor / scale).round().clamp(-127, 127).char(), scale


def int8_up(tensor: "Tensor") -> "tuple[Tensor, float]":
    """The same of values from 0 on, none of which becomes smaller: what is small does not become nothing.

    >>> from torch import tensor
    >>> int8_up(tensor([127.0, 0.0, 0.4, 63.6]))
    (tensor([127,   0,   1,  64], dtype=torch.int8), 1.0)
    """
    coded, scale = int8(tensor)
    return (tensor / scale).ceil().clamp(0, 127).char() if 0 < scale < float("inf") else coded, scale


def from_int8(tensor: "Tensor", scale: float) -> "Tensor":
    """Inverse of `int8`; all NaN where what was coded was not finite.

    >>> from torch import tensor
    >>> from_int8(tensor([127, -2]).char(), 0.5)
    tensor([63.5000, -1.0000])
    """
    return tensor.float() * scale if 0 <= scale < float("inf") else tensor.float().fill_(float("nan"))


FP16 = Codec("float16", half, encode_root=half)
INT8 = Codec("int8", int8, from_int8, encode_root=int8_up)
MIXED = replace(FP16, moments=INT8)
CODECS = {
    "fp32": Codec("float32", lambda tensor: (tensor, 1.0)),
    "fp16": FP16,
    "int8": INT8,
    "mixed": replace(MIXED, sent=MIXED),
}
"""Every codec by the name that a configuration uses. A new one is an entry here."""
