"""How large an update may be: a bound that no single site sets, and that honest ones hardly meet."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from server.round.clip import bounded, reference_size, usual_size
from server.round.spool import Spool
from shared.accounting import noise_for
from shared.codec import encode
from shared.config import RunConfig
from shared.messages import Reply
from shared.noise import noisy_mean

MODEL = {"w": torch.zeros(4, 4)}  # the norm of a tensor of ones is 4
Bounded = Callable[..., tuple[list[float], dict[str, dict[str, float]]]]


@pytest.fixture
def clipped(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Bounded:
    """Bound updates of ones times a size, of (size, patients, steps); return their factors and lines."""

    def make(*sites: tuple[float, int, int], usual: float | None = 4.0, words: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
        spool, norms = Spool(tmp_path, 1, "fp32"), {}
        for name, (size, patients, steps) in zip("abcdefgh", sites, strict=False):
            update: dict[str, Tensor] = {"w": torch.full((4, 4), size)}
            norms[name] = 4 * size
            spool.add(name, Reply(site=name, patients=patients, steps=steps, update=encode(update, "fp32")), 10**6, 1)
        shares, lines = bounded(spool.replies(), norms, run_config(*words), usual)
        return [share.factor for share in shares], lines

    return make


def test_a_large_update_is_clipped_to_two_medians_and_named(clipped: Bounded) -> None:
    factors, lines = clipped((1, 5, 1), (1, 5, 1), (19, 5, 1), (1, 5, 1))
    assert factors == [1.0, 1.0, pytest.approx(2 / 19), 1.0]
    assert lines["c"] == {"size": 19.0, "clipped": pytest.approx(2 / 19, abs=1e-6), "share": 0.25}
    assert lines["a"] == {"size": 1.0, "share": 0.25}


def test_size_is_by_the_root_of_the_steps(clipped: Bounded) -> None:
    """A hospital of 440 patients takes 220 times the steps of one of two, and is no attacker."""
    factors, lines = clipped((1, 1, 1), (1, 2, 1), (math.sqrt(220), 440, 220))
    assert factors == [1.0] * 3
    assert lines["c"]["size"] == 1.0


@pytest.mark.parametrize("attack", [0.0, 1e-9, 1.0, 1e5])
def test_of_two_sites_neither_sets_the_bound(clipped: Bounded, attack: float) -> None:
    """In the first round too: there is no earlier one."""
    factors, _ = clipped((0.9, 5, 1), (attack, 5, 1))
    assert factors[0] == 1.0
    assert factors[1] * attack <= 2.0


@pytest.mark.parametrize("size", [0.0, 0.04])
def test_a_majority_that_sends_next_to_nothing_does_not_freeze_the_model(clipped: Bounded, size: float) -> None:
    factors, _ = clipped((size, 5, 1), (size, 5, 1), (size, 5, 1), (0.9, 5, 1))
    assert factors[3] == 1.0


def test_a_run_of_one_site_is_bounded_by_nothing(clipped: Bounded) -> None:
    assert clipped((1e6, 5, 1), usual=None) == ([1.0], {"a": {"share": 1.0}})


def test_without_a_clip_any_size_counts(clipped: Bounded) -> None:
    factors, lines = clipped((1, 5, 1), (1, 5, 1), (1e6, 5, 1), words=("fold.clip=null",))
    assert factors == [1.0] * 3 and lines["c"]["size"] == 1e6


def test_the_largest_share_is_lowered_and_named(clipped: Bounded) -> None:
    _, lines = clipped((1, 1, 1), (1, 2, 1), (1, 13, 1), (1, 440, 1))
    assert lines["d"] == {"size": 1.0, "share": 0.5, "share_before": 0.9649}
    assert "share_before" not in lines["a"]


def test_a_fold_that_counts_sites_has_no_shares(clipped: Bounded) -> None:
    _, lines = clipped((1, 1, 1), (1, 2, 1), (1, 440, 1), words=("fold=median",))
    assert lines["c"] == {"size": 1.0}


@pytest.mark.parametrize("hostile", [0.0, 1e-12, 0.5, 1e12])
def test_one_of_any_number_of_sites_moves_the_reference_within_the_others(hostile: float) -> None:
    """And that of the configuration, which votes beside them."""
    honest = [0.7, 0.8, 0.9, 1.0, 1.1]
    for number in range(2, 6):
        assert 0.7 <= reference_size([*honest[: number - 1], hostile], usual=0.75) <= 1.1


@pytest.mark.parametrize("steps", [1, 20])
def test_usual_size_is_about_that_of_adamw_on_noise(run_config: Callable[..., RunConfig], steps: int) -> None:
    """Gradients without any sign in common, as in a minimum; in other places steps go on in one direction."""
    config = run_config("train.lr=0.01")
    weight = torch.nn.Parameter(torch.zeros(10_000))
    optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        weight.grad = torch.randn(10_000, generator=generator)
        optimizer.step()
    size = weight.detach().norm().item() / math.sqrt(steps)
    assert 0.5 < size / usual_size(config, 10_000, 1, 8) < 1.5


def test_usual_size_of_private_runs_is_that_of_their_noise(run_config: Callable[..., RunConfig]) -> None:
    """Four patients need several times the noise of a thousand for the same epsilon; its rate falls with the rounds."""
    words = ("privacy=dp_sgd", "privacy.epsilon=1", "train.steps=2", "privacy.batch=4")
    many, few = (usual_size(run_config(*words), 10_000, 1, patients) for patients in (1000, 4))
    assert 3 < few / many < 10
    falling = run_config(*words, "privacy.schedule=linear", "rounds=4")
    assert usual_size(falling, 100, 4, 9) == pytest.approx(usual_size(falling, 100, 1, 9) / 4)


def test_usual_size_of_a_hidden_update_is_that_of_one_with_its_noise(run_config: Callable[..., RunConfig]) -> None:
    config = run_config("privacy=local_update", "train.steps=2")
    update = {"w": torch.full((10_000,), 1.0)}  # clipped to a norm of 1
    sigma = noise_for(config.privacy.epsilon, 1 / (10 * 100), 1.0, config.rounds)
    norm = noisy_mean([update.__getitem__], update, config.privacy.clip, sigma, 7)["w"].norm().item()
    assert usual_size(config, 10_000, 1, 100) == pytest.approx(norm / math.sqrt(2), rel=0.05)
