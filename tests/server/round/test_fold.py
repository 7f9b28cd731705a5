"""The fold against arithmetic that can be done by hand, and against a slow loop."""

import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from server.round.fold import weighted_mean


class InMemory:
    def __init__(self, **tensors: Tensor) -> None:
        self.tensors = tensors

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]


def test_mean_is_weighted_by_patients() -> None:
    updates = [(InMemory(w=tensor([0.0])), 1), (InMemory(w=tensor([4.0])), 3)]
    assert weighted_mean(updates, {"w": tensor([0.0])})["w"] == 3.0


def test_equals_a_loop_over_values() -> None:
    generator = torch.Generator().manual_seed(0)
    model = {"a": torch.zeros(3, 2), "b": torch.zeros(())}
    sites = [({name: torch.randn(t.shape, generator=generator) for name, t in model.items()}, n) for n in (3, 1, 7)]
    mean = weighted_mean([(InMemory(**update), n) for update, n in sites], model)
    for name in model:
        slow = sum(update[name].double() * n for update, n in sites) / 11
        assert_close(mean[name], slow.float())


def test_large_and_small_values_keep_the_small_ones() -> None:
    """A sum in single precision would lose the 1 beside the 1e8."""
    updates = [(InMemory(w=tensor([value])), 1) for value in (1e8, 1.0, -1e8)]
    assert_close(weighted_mean(updates, {"w": tensor([0.0])})["w"], tensor([1 / 3]))
