"""How large an update may be: a bound that no single site sets, and that honest ones hardly meet."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from gliofed.server.round.clip import Clipped, bounded, reference_size, scaled, usual_size
from gliofed.server.round.fold import Share
from gliofed.server.round.gate import judge
from gliofed.server.round.spool import Spool
from gliofed.shared.algorithms.optimizers import OPTIMIZERS
from gliofed.shared.codec import encode
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply

MODEL = {"w": torch.zeros(4, 4), "mean": torch.zeros(2)}
CLIP = 1.5
"""As it is by default."""
STEP = 0.003
"""The learning rate: an update of one step has it in each value, and so the usual size."""
Bounded = Callable[..., tuple[list[Share], dict[str, dict[str, float]]]]


@pytest.fixture
def clipped(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Bounded:
    """Bound updates of (size in all values, patients, steps); `alone` in a run of one site."""

    def make(  # type: ignore[no-untyped-def]
        *sites: tuple[float, int, int], buffers=(), alone=False, words: tuple[str, ...] = (), changed=None
    ):
        spool = Spool(tmp_path, 1, "fp32")
        config = run_config(f"train.lr={STEP}", *words)
        for number, (name, (size, patients, steps)) in enumerate(zip("abcdefgh", sites, strict=False)):
            update = {"w": torch.full((4, 4), size * STEP), "mean": torch.zeros(2)}
            if buffers:
                update["mean"] += buffers[number]
            if changed and number == changed[0]:
                update["w"] = changed[1]
            spool.add(name, Reply(site=name, patients=patients, steps=steps, update=encode(update, "fp32")), 10**6, 1)
        replies = spool.replies()
        _, measures = judge(replies, MODEL, ["w"], replace(config, train=replace(config.train, steps=10**6)))
        return bounded(replies, measures, config, None if alone else {"w": 16}, 1)

    return make


def factors(shares: list[Share], name: str = "w") -> list[float]:
    return [share.update.factors.get(name, 1.0) if isinstance(share.update, Clipped) else 1.0 for share in shares]


def test_a_large_update_is_clipped_to_so_many_medians_and_named(clipped: Bounded) -> None:
    shares, lines = clipped((1, 5, 1), (1, 5, 1), (19, 5, 1), (1, 5, 1))
    assert factors(shares) == pytest.approx([1.0, 1.0, CLIP / 19, 1.0])
    assert lines["c"] == {"size": 19.0, "clipped": pytest.approx(CLIP / 19, rel=1e-3), "share": 0.25}
    assert lines["a"] == {"size": 1.0, "share": 0.25}
    assert_close(shares[2].update.tensor("w"), torch.full((4, 4), CLIP * STEP))
    assert_close(shares[2].update.part("w", 3, 5), torch.full((2,), CLIP * STEP))


def test_size_is_by_the_root_of_the_steps(clipped: Bounded) -> None:
    """A hospital of 440 patients takes 220 times the steps of one of two, and is no attacker."""
    shares, lines = clipped((1, 1, 1), (1, 2, 1), (math.sqrt(220), 440, 220))
    assert factors(shares) == [1.0] * 3
    assert lines["c"]["size"] == 1.0


@pytest.mark.parametrize("attack", [0.0, 1e-9, 1.0, 1e5])
def test_of_two_sites_neither_sets_the_bound(clipped: Bounded, attack: float) -> None:
    """In the first round too: there is no earlier one."""
    shares, _ = clipped((0.9, 5, 1), (attack, 5, 1))
    assert factors(shares)[0] == 1.0
    assert factors(shares)[1] * attack <= CLIP


@pytest.mark.parametrize("size", [0.0, 0.049, 0.249])
def test_a_majority_that_sends_next_to_nothing_does_not_freeze_the_model(clipped: Bounded, size: float) -> None:
    shares, _ = clipped((size, 5, 1), (size, 5, 1), (size, 5, 1), (0.9, 5, 1))
    assert factors(shares)[3] == 1.0


def test_a_run_of_one_site_is_bounded_by_nothing(clipped: Bounded) -> None:
    shares, lines = clipped((1e6, 5, 1), alone=True)
    assert (factors(shares), lines) == ([1.0], {"a": {"share": 1.0}})


def test_without_a_clip_any_size_counts(clipped: Bounded) -> None:
    shares, lines = clipped((1, 5, 1), (1, 5, 1), (1e6, 5, 1), words=("fold.clip=null",))
    assert factors(shares) == [1.0] * 3 and lines["c"]["size"] == 1e6


def test_the_largest_share_is_lowered_and_named(clipped: Bounded) -> None:
    _, lines = clipped((1, 1, 1), (1, 2, 1), (1, 13, 1), (1, 440, 1))
    assert lines["d"] == {"size": 1.0, "share": 0.5, "share_before": pytest.approx(440 / 456)}
    assert "share_before" not in lines["a"]


def test_a_fold_that_counts_sites_has_no_shares(clipped: Bounded) -> None:
    _, lines = clipped((1, 1, 1), (1, 2, 1), (1, 440, 1), words=("fold=median",))
    assert lines["c"] == {"size": 1.0}


@pytest.mark.parametrize("hostile", [0.0, 1e-12, 0.5, 1e12])
def test_one_of_any_number_of_sites_moves_the_reference_within_the_others(hostile: float) -> None:
    """And that of the configuration, which votes beside them."""
    honest = [0.7, 0.8, 0.9, 1.0, 1.1]
    for number in range(2, 6):
        assert 0.7 <= reference_size([*honest[: number - 1], hostile]) <= 1.1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_weight_decay_takes_from_large_weights_meets_no_bound(
    run_config: Callable[..., RunConfig], tmp_path: Path, optimizer: str
) -> None:
    """It moves a weight by its own size times rate and decay in each step, further than the optimiser does."""
    config = run_config(f"optimizer={optimizer}", "train.lr=0.01", "train.weight_decay=0.5", "train.steps=20")
    start, spool = {"weight": torch.full((4, 4), 100.0)}, Spool(tmp_path, 1, "fp32")
    moved = torch.nn.Parameter(start["weight"].clone())
    stepper = OPTIMIZERS[optimizer].make([moved], 0.01, 0.5, config.optimizer)
    for _ in range(20):
        moved.grad = torch.ones(4, 4)
        stepper.step()
    update = encode({"weight": moved.detach() - start["weight"]}, "fp32")
    for site in ("a", "b"):
        spool.add(site, Reply(site=site, patients=8, steps=20, update=update), 10**6, 1)
    _, measures = judge(spool.replies(), start, ["weight"], config)
    _, lines = bounded(spool.replies(), measures, config, {"weight": 16}, 1, like=start)
    assert all("peak" not in line for line in lines.values()), lines


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_muon_s_usual_size_has_a_vote_and_its_own_updates_meet_no_bound(
    run_config: Callable[..., RunConfig], tmp_path: Path, steps: int
) -> None:
    """A kernel, a matrix and a bias of a wide model: single values of a kernel go much further than their mean."""
    config = run_config("optimizer=muon", "train.lr=0.01", f"train.steps={steps}")
    generator = torch.Generator().manual_seed(0)
    start = {"kernel": torch.zeros(32, 16, 3, 3, 3), "matrix": torch.zeros(3, 32), "bias": torch.zeros(3)}
    numbers = {name: each.numel() for name, each in start.items()}
    spool = Spool(tmp_path, 1, "fp32")
    for site in ("a", "b"):
        moved = {name: torch.nn.Parameter(each.clone()) for name, each in start.items()}
        muon = OPTIMIZERS["muon"].make(moved.values(), 0.01, 0.0, config.optimizer)
        for _ in range(steps):
            for each in moved.values():
                each.grad = torch.randn(each.shape, generator=generator)
            muon.step()
        spool.add(site, Reply(site=site, patients=8, steps=steps, update=encode(moved, "fp32")), 10**6, 1)
    replies = spool.replies()
    _, measures = judge(replies, start, [*start], config)
    assert all(
        0.5 < each.norm / math.sqrt(steps) / usual_size(config, [each.shape for each in start.values()], 1, 8) < 4
        for each in measures.values()
    )
    _, lines = bounded(replies, measures, config, numbers, 1, like=start)
    assert all(line.keys() == {"size", "share"} for line in lines.values())
    update = encode({name: each.detach() + (10.0 if name == "bias" else 0.0) for name, each in moved.items()}, "fp32")
    spool.add("b", Reply(site="b", patients=8, steps=steps, update=update), 10**6, 1)
    replies = spool.replies()
    shares, lines = bounded(replies, judge(replies, start, [*start], config)[1], config, numbers, 1, like=start)
    assert lines["b"]["peak"] > 1 and "peak" not in lines["a"]
    assert shares[1].update.tensor("bias").abs().max() <= CLIP * 0.01 * steps * OPTIMIZERS["muon"].farthest((3,))


def test_private_sites_are_measured_by_the_numbers_that_they_tell(
    clipped: Bounded, run_config: Callable[..., RunConfig]
) -> None:
    """They plan their noise from these; what was agreed is rounded up, and has room for the noise of a number."""
    words = ("privacy=dp_sgd", "privacy.epsilon=1", "train.steps=2", "privacy.batch=4")
    told = (80, 80, 20)
    sizes = [usual_size(run_config(*words), [(16,)], 1, patients) * math.sqrt(2) / STEP / 4 for patients in told]
    _, lines = clipped(*((size, patients, 2) for size, patients in zip(sizes, told, strict=True)), words=words)
    assert not any("clipped" in line for line in lines.values())


def test_no_weight_moves_further_than_its_steps_can(clipped: Bounded) -> None:
    """Else the size of a whole update on one bias would decide what the model says."""
    spike = torch.zeros(4, 4)
    spike[0, 0] = 4 * STEP  # the norm of the others
    shares, lines = clipped(*[(1, 5, 1)] * 4, changed=(2, spike))
    assert lines["c"] == {"size": 1.0, "peak": pytest.approx(4 / CLIP, rel=1e-3), "share": 0.25}
    assert shares[2].update.tensor("w")[0, 0].item() == pytest.approx(CLIP * STEP)
    assert all("peak" not in lines[site] for site in "abd")


def test_buffers_are_clipped_one_by_one_and_are_no_part_of_the_size(clipped: Bounded) -> None:
    """Running statistics follow the data, not the steps; BatchNorm's are many times as large as what is trained."""
    shares, lines = clipped(*[(1, 5, 1)] * 4, buffers=(1.0, 1.5, 100.0, 1.0))
    assert factors(shares, "mean") == pytest.approx([1.0, 1.0, CLIP / 100, 1.0])
    assert [lines[site]["size"] for site in "abcd"] == [1.0] * 4
    assert lines["c"]["clipped_buffers"] == {"mean": pytest.approx(CLIP / 100)}
    assert all("clipped_buffers" not in lines[site] for site in "abd")


def test_a_method_scales_what_its_steps_moved_and_nothing_else(clipped: Bounded) -> None:
    """Running statistics that go many times as far as the data's leave their range."""
    shares, _ = clipped((1, 5, 1), (1, 5, 1), buffers=(1.0, 1.0))
    for share, factor in zip(scaled(shares, [4.0, 0.5], ["w"]), [4.0, 0.5], strict=True):
        assert_close(share.update.tensor("w"), torch.full((4, 4), factor * STEP))
        assert_close(share.update.part("w", 3, 5), torch.full((2,), factor * STEP))
        assert_close(share.update.tensor("mean"), torch.ones(2))


def test_of_two_sites_the_one_whose_buffers_are_clipped_is_named(clipped: Bounded) -> None:
    """The lower median of two is the smaller one, so scans of two scanners can be enough."""
    shares, lines = clipped((1, 5, 1), (1, 5, 1), buffers=(1.0, 2.0))
    assert factors(shares, "mean") == pytest.approx([1.0, CLIP / 2])
    assert "clipped_buffers" not in lines["a"] and lines["b"]["clipped_buffers"] == {"mean": pytest.approx(CLIP / 2)}


def test_hidden_updates_of_whole_sites_weigh_the_same(clipped: Bounded) -> None:
    """Each honest site says 1; more is not the site's to claim."""
    _, lines = clipped((1, 1, 1), (1, 12, 1), (1, 1, 1), words=("privacy=local_update",))
    assert [lines[site]["share"] for site in "abc"] == pytest.approx([1 / 3] * 3)
