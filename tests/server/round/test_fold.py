"""The folds against arithmetic that can be done by hand, and against slow and obvious ones over whole vectors."""

import itertools
from collections.abc import Callable
from pathlib import Path
from statistics import median as middle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor, tensor
from torch.testing import assert_close

import gliofed.server.round.fold
from gliofed.server.round.fold import FOLDS, Share, fold, limit_shares, weighted_mean
from gliofed.shared.codec import CodedUpdate, encode
from gliofed.shared.config import FoldConfig

MODEL = {"a": torch.zeros(3, 2), "b": torch.zeros(())}


class InMemory:
    def __init__(self, **tensors: Tensor) -> None:
        self.tensors = tensors

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]

    def part(self, name: str, start: int, stop: int) -> Tensor:
        return self.tensors[name].reshape(-1)[start:stop]


HOSTILE = {3: 1, 4: 1, 9: 2}
"""Of so many sites, a quarter of them, and one at least."""


def shares(sites: int, seed: int = 0) -> list[Share]:
    """Random updates of different weights."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [{name: torch.randn(t.shape, generator=generator) for name, t in MODEL.items()} for _ in range(sites)]
    return [Share(InMemory(**update), 1 + 3 * n) for n, update in enumerate(drawn)]


def vector(update: dict[str, Tensor] | Share) -> np.ndarray:
    """All values of an update, as they enter a fold."""
    if isinstance(update, Share):
        return np.concatenate([update.update.tensor(name).double().reshape(-1) for name in MODEL])
    return np.concatenate([update[name].double().reshape(-1) for name in MODEL])


def slow_median(vectors: list[np.ndarray], weights: list[float]) -> np.ndarray:
    return np.array([middle(values) for values in zip(*vectors, strict=True)])


def slow_trimmed_mean(vectors: list[np.ndarray], weights: list[float]) -> np.ndarray:
    cut = HOSTILE[len(vectors)]
    kept = [sorted(values)[cut : len(values) - cut] for values in zip(*vectors, strict=True)]
    return np.array([sum(values) / len(values) for values in kept])


def slow_krum(vectors: list[np.ndarray], weights: list[float]) -> np.ndarray:
    near = max(1, len(vectors) - HOSTILE[len(vectors)] - 2)
    scores = []
    for one in vectors:
        distances = sorted(float(((one - other) ** 2).sum()) for other in vectors if other is not one)
        scores.append(sum(distances[:near]))
    return vectors[scores.index(min(scores))]


def slow_geometric_median(vectors: list[np.ndarray], weights: list[float]) -> np.ndarray:
    def pull(point: np.ndarray) -> float:
        return sum(w * float(np.linalg.norm(point - v)) for v, w in zip(vectors, weights, strict=True))

    start = np.average(vectors, axis=0, weights=weights)
    found = minimize(pull, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxfev": 100_000})
    return minimize(pull, found.x, method="BFGS", options={"gtol": 1e-10}).x


SLOW: dict[str, Callable[[list[np.ndarray], list[float]], np.ndarray]] = {
    "mean": lambda vectors, weights: np.average(vectors, axis=0, weights=weights),
    "median": slow_median,
    "trimmed_mean": slow_trimmed_mean,
    "krum": slow_krum,
    "geometric_median": slow_geometric_median,
}


@pytest.mark.parametrize(("name", "sites"), list(itertools.product(FOLDS, (3, 4, 9))))
def test_every_fold_is_the_slow_one(name: str, sites: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In slices of a single value too, as a large model's are of some."""
    given = shares(sites)
    slow = SLOW[name]([vector(share) for share in given], [share.weight for share in given])
    whole = fold(given, MODEL, FoldConfig(name=name))
    np.testing.assert_allclose(vector(whole), slow, rtol=1e-5, atol=2e-5 if name == "geometric_median" else 1e-7)
    monkeypatch.setattr(gliofed.server.round.fold, "SLICE", 1)
    sliced = fold(given, MODEL, FoldConfig(name=name))
    np.testing.assert_allclose(vector(sliced), vector(whole), rtol=1e-6)
    assert sliced["a"].shape == (3, 2) and sliced["b"].shape == () and sliced["a"].dtype == torch.float32


@pytest.mark.parametrize("name", FOLDS)
def test_updates_that_are_all_the_same_are_the_fold(name: str) -> None:
    """Their distances are all zero, which nothing may be divided by."""
    same = [Share(shares(1)[0].update, 3)] * 5
    np.testing.assert_allclose(vector(fold(same, MODEL, FoldConfig(name=name))), vector(same[0]), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in FOLDS if name != "mean"])
@pytest.mark.parametrize("sites", [3, 5])
def test_one_site_does_not_move_a_robust_fold_far(name: str, sites: int) -> None:
    """With the greatest share that it may have; of three sites as well."""
    honest, attack = shares(sites - 1), InMemory(a=torch.full((3, 2), -1e6), b=torch.tensor(1e6))
    weights = limit_shares([*(share.weight for share in honest), 10**6], most=0.33)
    given = [Share(each, n) for each, n in zip([*(s.update for s in honest), attack], weights, strict=True)]
    folded = vector(fold(given, MODEL, FoldConfig(name=name)))
    assert np.abs(folded).max() <= 3 * max(np.abs(vector(share)).max() for share in honest)


@pytest.mark.parametrize("name", FOLDS)
def test_two_updates_are_folded_by_their_mean(name: str) -> None:
    """Of two, no majority can be told; krum would take one of them as it is."""
    two = shares(2)
    assert_close(fold(two, MODEL, FoldConfig(name=name)), weighted_mean(two, MODEL), rtol=0, atol=0)


@pytest.mark.parametrize("codec", ["fp32", "fp16", "int8"])
def test_a_part_is_that_of_the_whole_tensor(codec: str, tmp_path: Path) -> None:
    (tmp_path / "update").write_bytes(encode({"w": torch.randn(4, 5).t()}, codec))
    update = CodedUpdate(tmp_path / "update", codec)
    assert_close(update.part("w", 3, 9), update.tensor("w").reshape(-1)[3:9], rtol=0, atol=0)


def test_mean_is_weighted_by_patients() -> None:
    updates = [Share(InMemory(w=tensor([0.0])), 1), Share(InMemory(w=tensor([4.0])), 3)]
    assert weighted_mean(updates, {"w": tensor([0.0])})["w"] == 3.0


def test_large_and_small_values_keep_the_small_ones() -> None:
    """A sum in single precision would lose the 1 beside the 1e8."""
    updates = [Share(InMemory(w=tensor([value])), 1) for value in (1e8, 1.0, -1e8)]
    assert_close(weighted_mean(updates, {"w": tensor([0.0])})["w"], tensor([1 / 3]))


def slow_limit(weights: list[int], most: float) -> list[float]:
    """Lower the heaviest to the ceiling of what is now there, again and again."""
    limited = [float(weight) for weight in weights]
    for _ in range(3000):
        before = limited.copy()
        for place, weight in enumerate(limited):
            others = sum(limited) - weight
            limited[place] = min(weight, most / (1 - most) * others)
        if limited == before:
            break
    return limited


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=8), st.sampled_from([0.4, 0.5, 0.75, 1 - 1e-9]))
def test_limited_shares_are_those_of_a_slow_loop(weights: list[int], most: float) -> None:
    limited = limit_shares(weights, most)
    assert max(limited) <= most * sum(limited) * (1 + 1e-9)
    assert limited == pytest.approx(slow_limit(weights, most), rel=1e-3)


def test_shares_below_the_ceiling_stay_as_they_are() -> None:
    """Bit for bit: the default run's weights must not change."""
    assert limit_shares([3, 4, 5], 0.5) == [3, 4, 5] and limit_shares([1, 99], 0.5) == [1, 99]
    assert limit_shares([3, 4, 50], 1.0) == [3, 4, 50]
    assert limit_shares([3, 4, 50], 0.2) == [1.0, 1.0, 1.0]
