"""Sites that lie in the groups beside their update: what is refused, and how far the rest moves the others' groups."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from judged_site import train
from plain_federation import model_of, rounds_of, sites_of
from safetensors.torch import load
from small_run import as_given, composed
from torch import Tensor
from torch.testing import assert_close

from gliofed.server.round.clip import bounded
from gliofed.server.round.fold import fold
from gliofed.server.round.gate import judge
from gliofed.server.round.history import Event
from gliofed.server.round.model import initial_model
from gliofed.server.round.spool import Spooled
from gliofed.shared.algorithms import next_groups, sent_of
from gliofed.shared.algorithms.groups import Groups, joined, parted, zeros
from gliofed.shared.codec import encode, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import ConfigError
from gliofed.simulation.fault_mod import spoilt
from gliofed.simulation.faults import parse_faults
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]
SCAFFOLD = ("algorithm=scaffold", "optimizer=sgd", "train.lr=0.05")
AVERAGED = ("optimizer=adamw", "optimizer.moments=averaged")
MUON = ("optimizer=muon", "optimizer.moments=averaged")
GROUPS = {"control": SCAFFOLD, "exp_avg": AVERAGED, "exp_avg_sq": AVERAGED, "momentum_buffer": MUON}
SOME = ["control", *(pytest.param(group, marks=pytest.mark.slow) for group in [*GROUPS][1:])]
"""For the default tests, one group; the others are slow."""
CLIP, MOST_SHARE = 1.5, 0.5
"""The defaults of configs/fold/mean.yaml."""
HOSTILE, SECOND = "site-4", "site-2"
"""Who lies in one round, and in whole runs. The first is the one whose honest change is the smallest: a lie that is
clipped to what is usual then moves the most."""


@dataclass
class Round:
    """The second round of four honest sites: their groups are no zeros any more."""

    run: RunConfig
    weights: dict[str, Tensor]
    sent: Groups
    replies: dict[str, Reply]
    folded: Groups
    """What the four make."""

    def attacked(self, fault: str, folder: Path, fold: str = "mean", agreed: int = 3) -> "Outcome":
        """What the server makes of it if one site has a fault."""
        run = replace(self.run, fold=replace(self.run.fold, name=fold))
        found = parse_faults({HOSTILE: fault}, [HOSTILE], run)[HOSTILE]
        lie = spoilt(self.replies[HOSTILE], found, run, agreed)
        return served(run, self.replies | {HOSTILE: lie}, self.weights, self.sent, folder)

    def values(self, group: str) -> dict[str, Tensor]:
        """All values of a group in one row, by site."""
        return {site: row(parted(load(reply.update))[1][group]) for site, reply in self.replies.items()}


@dataclass
class Outcome:
    groups: Groups
    """Sent next."""
    folded: Groups
    refused: dict[str, str]
    lines: dict[str, Event]


def served(run: RunConfig, replies: Mapping[str, Reply], weights: dict[str, Tensor], sent: Groups, to: Path) -> Outcome:
    """Gate, clip, fold and step, as the server does it."""
    like, parameters = joined(weights, sent), {name: each.numel() for name, each in weights.items()}
    came = [spooled(site, reply, to / site) for site, reply in sorted(replies.items())]
    refused, measures = judge(came, like, parameters, run)
    counted = [reply for reply in came if reply.site not in refused]
    shares, lines = bounded(counted, measures, run, parameters, 1, 1.0, like)
    folded = parted(fold(shares, like, run.fold))[1]
    return Outcome(next_groups(run, sent, folded, 1.0), folded, refused, lines)


def spooled(site: str, reply: Reply, path: Path) -> Spooled:
    """As it lies in a spool, but for the waiting until it is on the disk."""
    path.write_bytes(reply.update)
    kept = {"patients": reply.patients, "steps": reply.steps, "metrics": reply.metrics, "left_out": reply.left_out}
    more: dict[str, Any] = {"ceiling": 1000, "epsilon": None, "size": len(reply.update), "codec": "fp32"}
    return Spooled(site=site, node=1, path=path, **kept, **more)


def row(named: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([named[name].double().reshape(-1) for name in sorted(named)])


Rounds = Callable[[str], Round]


@pytest.fixture(scope="module")
def round_of(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    """By the group that is attacked."""
    made = cache(lambda words: second_round(words, tmp_path_factory.mktemp("round")))
    return lambda group: made(GROUPS[group])


def second_round(words: tuple[str, ...], folder: Path) -> Round:
    values = composed("sites=4", *words)
    run, _ = parse_settings(values)
    weights = {name: each.detach().clone() for name, each in initial_model(run).named_parameters()}
    sites, sent, parents = sites_of(values, run, folder), zeros(sent_of(run), weights), dict[str, str]()
    for number in (1, 2):
        asked = Request(run_id="r", round=number, config=run, weights=weights_to_bytes(joined(weights, sent)))
        replies = {site.name: train(site, replace(asked, parent=parents.get(site.name, ""))) for site in sites}
        if number == 1:
            sent = served(run, replies, weights, sent, folder).groups
            parents = {name: reply.update_sha256 for name, reply in replies.items()} if "scaffold" in str(words) else {}
    return Round(run, weights, sent, replies, served(run, replies, weights, sent, folder).folded)


@pytest.mark.parametrize("group", SOME)
@pytest.mark.parametrize(
    ("fault", "reason"), [("nan", "not finite"), ("inf", "not finite"), ("shape", "wrong shape"), ("flip", "below 0")]
)
def test_what_cannot_be_is_refused(round_of: Rounds, tmp_path: Path, group: str, fault: str, reason: str) -> None:
    """By its name, and nothing of it is in what the others make. Only second moments may not be negative."""
    if fault == "flip" and group != "exp_avg_sq":
        return
    each = round_of(group)
    outcome = each.attacked(f"{group}/{fault}", tmp_path)
    assert reason in outcome.refused[HOSTILE] and f"{group}/" in outcome.refused[HOSTILE]
    rest = {site: reply for site, reply in each.replies.items() if site != HOSTILE}
    assert_close(outcome.groups, served(each.run, rest, each.weights, each.sent, tmp_path).groups, rtol=0, atol=0)


@pytest.mark.parametrize("fault", ["zero", "scale", "flip", "bias:100"])
@pytest.mark.parametrize("group", SOME)
def test_one_of_four_moves_the_mean_by_its_share_of_what_is_usual(
    round_of: Rounds, tmp_path: Path, group: str, fault: str
) -> None:
    """fold.clip times the largest change of an honest site, times its share of the weight, and its own honest part."""
    if group == "exp_avg_sq" and fault.partition(":")[0] in ("flip", "bias"):
        return  # below zero: refused
    each = round_of(group)
    outcome = each.attacked(f"{group}/{fault}", tmp_path)
    sent, values = row(each.sent[group]), each.values(group)
    changes = {site: (value - sent).norm().item() for site, value in values.items()}
    assert max(changes.values()) < CLIP * min(changes.values()), "else honest sites are clipped as well"
    moved = (row(outcome.folded[group]) - row(each.folded[group])).norm().item()
    share = outcome.lines[HOSTILE]["share"]
    assert moved <= 1.001 * share * (CLIP * max(changes.values()) + changes[HOSTILE])
    if fault in ("scale", "flip"):
        assert outcome.lines[HOSTILE]["clipped_buffers"].keys() == {group}
        assert moved > 0.1 * max(changes.values())  # it does something
    assert not any("clipped_buffers" in line for site, line in outcome.lines.items() if site != HOSTILE)


@pytest.mark.parametrize("fault", ["zero", "scale", "flip"])
@pytest.mark.parametrize("group", SOME)
def test_one_of_four_moves_a_median_within_the_others(round_of: Rounds, tmp_path: Path, group: str, fault: str) -> None:
    if (group, fault) == ("exp_avg_sq", "flip"):
        return  # refused
    each = round_of(group)
    folded = row(each.attacked(f"{group}/{fault}", tmp_path, fold="median").folded[group])
    honest = torch.stack([value for site, value in each.values(group).items() if site != HOSTILE])
    slack = 1e-6 * honest.abs().max()
    assert bool((folded >= honest.min(0).values - slack).all() and (folded <= honest.max(0).values + slack).all())


@pytest.mark.parametrize("group", SOME)
def test_a_group_has_the_share_of_its_update(round_of: Rounds, tmp_path: Path, group: str) -> None:
    """Whoever claims all patients has half of the weight of the group, too."""
    each = round_of(group)
    name = "scale" if group == "exp_avg_sq" else "greedy"
    claimed = {HOSTILE: replace(each.replies[HOSTILE], patients=900)}
    outcome = replace(each, replies=each.replies | claimed).attacked(f"{group}/{name}", tmp_path, agreed=900)
    assert outcome.lines[HOSTILE]["share"] == pytest.approx(MOST_SHARE)
    sent, values = row(each.sent[group]), each.values(group)
    changes = {site: (value - sent).norm().item() for site, value in values.items()}
    rest = sum(outcome.lines[site]["share"] * (value - sent) for site, value in values.items() if site != HOSTILE)
    lie = (row(outcome.folded[group]) - sent - rest).norm().item()
    assert lie == pytest.approx(MOST_SHARE * CLIP * sorted(changes.values())[1], rel=0.5)
    assert lie <= 1.001 * MOST_SHARE * CLIP * max(changes.values())


@pytest.mark.parametrize("group", SOME)
def test_lies_do_not_add_up_over_rounds(tmp_path: Path, group: str, run_config: Callable[..., RunConfig]) -> None:
    """A group is state, so each lie is in what all sites go on from.

    Three sites do what theirs do without a network: their gradients are 1 and noise. The fourth goes as far as it may,
    in one direction, in each of 25 rounds. Where a control variate was a sum of changes, it went on for ever; where
    moments were clipped by their size, which is mostly what was sent, they grew by an eighth in each round.
    """
    run, noise, steps = run_config(*GROUPS[group]), torch.Generator().manual_seed(0), 4
    of_a_step = {"control": 0.0, "exp_avg": 0.9, "exp_avg_sq": 0.999, "momentum_buffer": 0.95}
    keeps = of_a_step[group] ** steps
    weights = {"w": torch.zeros(64)}
    sent, far = {group.name: {"w": torch.ones(64)} for group in sent_of(run)}, []
    for _ in range(25):
        replies = {}
        for site in ("a", "b", "c", "d"):
            own = {name: {"w": each["w"] + 1.0} for name, each in sent.items()}  # of the other group: as it comes
            fresh = 1 + 0.3 * torch.randn(64, generator=noise)
            own[group]["w"] = keeps * sent[group]["w"] + (1 - keeps) * fresh.clamp(min=0)
            if site == "d":
                own[group]["w"] = sent[group]["w"] + 1000.0
            coded = encode(joined({"w": torch.ones(64)}, own), "fp32")
            replies[site] = Reply(site=site, patients=1, steps=1, update=coded)
        sent = served(run, replies, weights, sent, tmp_path).groups
        far.append((sent[group]["w"] - 1).norm().item())
    assert max(far) < 4, "half the norm of the gradients"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [pytest.param(SCAFFOLD, id="scaffold"), pytest.param(AVERAGED, id="averaged", marks=pytest.mark.slow)]
)
def test_a_run_is_as_without_the_site_whose_group_is_refused(values: Values, tmp_path: Path, words: tuple[str]) -> None:
    """In each round: a lie that was refused is not what the site goes on from."""
    group = "control" if words is SCAFFOLD else "exp_avg_sq"
    for name, fault in {"lies": f"{group}/nan", "fails": "raise"}.items():
        faults = f"faults={{{SECOND}:{fault}}}"
        simulate(values("sites=3", "round.evaluate_every=0", *words, faults, f"out={tmp_path / name}"))
    for event in rounds_of(tmp_path / "lies"):
        line = event["sites"][SECOND]
        assert line["status"] == "refused" and line["reason"].startswith(f"not finite: {group}/")
    assert_close(model_of(tmp_path / "lies"), model_of(tmp_path / "fails"), rtol=0, atol=0)


@pytest.mark.slow
def test_a_site_that_lies_goes_on_to_lie(values: Values, out: Path) -> None:
    """What it kept is found by what it sent. It declined from the second round on, and no attack was measured."""
    words = (*SCAFFOLD, "rounds=3", "round.evaluate_every=0")
    simulate(values("sites=3", *words, f"faults={{{SECOND}:control/scale}}", f"out={out}"))
    for event in rounds_of(out):
        assert event["sites"][SECOND]["clipped_buffers"].keys() == {"control"}


@pytest.mark.parametrize(
    ("fault", "words", "sentence"),
    [
        ("control/scale:2", (), "the groups of this run are none"),
        ("control/scale", AVERAGED, "the groups of this run are exp_avg, exp_avg_sq"),
        ("control/hang", SCAFFOLD, "on a group there are nan, inf, zero, shape, scale, flip, greedy, bias, claim"),
        ("control/label_flip", SCAFFOLD, "on a group there are nan"),
        ("/scale", SCAFFOLD, "must be one of nan"),
    ],
)
def test_a_fault_on_a_group_that_there_is_not_is_refused(
    run_config: Callable[..., RunConfig], fault: str, words: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_faults({"site-1": fault}, ["site-1"], run_config(*words))


LEARNING = ("model=unet", "data=mock", "data.size=[16,16,16]", "data.patch=[16,16,16]", "data.radius_max=6", "sites=4")
LEARNING += ("data.patients=12", "data.validation=0.5", "train.steps=4", "round.join=5", "round.evaluate_every=9")
RUNS = {"control": (*SCAFFOLD, "train.lr=0.3", "rounds=9"), "exp_avg": (*AVERAGED, "train.lr=0.01", "rounds=9")}
RUNS |= {"exp_avg_sq": RUNS["exp_avg"], "momentum_buffer": (*MUON, "rounds=9")}


@pytest.fixture(scope="module")
def honest_dice(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("honest")
    last = {words: group for group, words in RUNS.items()}
    of_runs = {words: dice_of(folder / group, words) for words, group in last.items()}
    return {group: of_runs[words] for group, words in RUNS.items()}


def dice_of(out: Path, words: tuple[str, ...]) -> float:
    """Of the honest sites after the last round."""
    simulate(as_given(*LEARNING, *words, f"out={out}"))
    sites = rounds_of(out)[-1]["sites"]
    return fmean(line["evaluate"]["dice"] for site, line in sites.items() if site != SECOND)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["flip", "scale", "zero", "bias:19"])
@pytest.mark.parametrize("group", GROUPS)
def test_the_others_learn_nevertheless(honest_dice: dict[str, float], tmp_path: Path, group: str, attack: str) -> None:
    """The figures are in docs/threats.md."""
    dice = dice_of(tmp_path / "out", (*RUNS[group], f"faults={{{SECOND}:{group}/{attack}}}"))
    print(f"{group} {attack}: {dice:.3f} of {honest_dice[group]:.3f}")
    assert dice >= 0.9 * honest_dice[group]
