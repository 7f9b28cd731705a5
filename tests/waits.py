"""Sees what a host would wait for if it had a GPU: a step runs on shapes alone, on the device meta of PyTorch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
META = torch.device("meta")
READ = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2, aten.bincount}
"""Their results, or the shapes of these, are numbers that the host needs before it goes on."""
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
COPIES = {aten._to_copy, aten.copy_}


class Waits(TorchDispatchMode):
    """Collects, as `found`, what would make the host wait for device meta; `.item()` gives 0, so that a step goes on.

    Also with the tensors of a CPU: of those only what reads values counts, since no copy goes to another device. What
    PyTorch copies before it dispatches, such as a list that is an index, does not show: tests of a GPU see that.
    """

    def __init__(self, device: torch.device = META) -> None:
        super().__init__()
        self.device = device
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if any(each.device == self.device for each in tensors) or kwargs.get("device") == self.device:
            if packet in READ or (packet in INDEXED and any(map(self._is_read, args[1]))):
                self.found.append(str(packet))
            elif packet in COPIES and self._blocks(packet, args, kwargs):
                self.found.append(f"{packet}, blocking")
        if packet is aten._local_scalar_dense and args[0].device == META:
            return 0.0
        return func(*args, **kwargs)

    def _is_read(self, index: Tensor | None) -> bool:
        """A mask's places are counted, and an index of another device is copied."""
        return index is not None and (index.dtype in (torch.bool, torch.uint8) or index.device != self.device)

    def _blocks(self, packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        if packet is aten.copy_:
            target, source = args[0].device, args[1].device
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        else:
            source, target = args[0].device, kwargs.get("device") or args[0].device
            waits = not kwargs.get("non_blocking")
        return source != target and waits
