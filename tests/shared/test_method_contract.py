"""Every method does what it declares: what it leaves out, or misnames, would be silently lost in a run."""

import re
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from method_oracle import METHODS
from small_run import CONFIGS
from torch import nn

from gliofed.server.round.model import initial_model
from gliofed.shared.algorithms import ALGORITHMS, AlgorithmConfig
from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.fedbn import HOME, FedBN
from gliofed.shared.algorithms.groups import Group, Groups, Local, zeros
from gliofed.shared.algorithms.moments import STEP
from gliofed.shared.algorithms.optimizers import OPTIMIZERS, OptimizerConfig
from gliofed.shared.algorithms.scaffold import Scaffold
from gliofed.shared.config import RunConfig

DOCS = Path(__file__).parents[2] / "docs"
RESERVED = {STEP.name} | {moment.name for each in OPTIMIZERS.values() for moment in each.moments}


@pytest.fixture
def model(run_config: Callable[..., RunConfig]) -> nn.Module:
    """After a step: all parameters have a gradient but for the first, which is frozen."""
    model = initial_model(run_config())
    frozen, *others = model.parameters()
    frozen.requires_grad = False
    for parameter in others:
        parameter.grad = parameter.detach().clone()
    return model


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_method_does_what_it_declares(name: str, model: nn.Module) -> None:
    assert faults(ALGORITHMS[name], model) == []


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_method_is_documented_and_has_an_oracle(name: str) -> None:
    assert (CONFIGS / "algorithm" / f"{name}.yaml").is_file(), "no choice algorithm=NAME"
    for page in ("methods.md", "privacy.md"):
        assert f"\n| `{name}` |" in (DOCS / page).read_text(encoding="utf-8"), f"no row in docs/{page}"
    assert name in METHODS or name == "fedavg", "no oracle in tests/method_oracle.py"


def faults(method: FedAvg, model: nn.Module) -> list[str]:
    """A sentence for each place where a method does not keep to `FedAvg`'s docstrings; it is tried on a model."""
    parameters, home = dict(model.named_parameters()), method.at_home(model)
    trained = {name: each for name, each in parameters.items() if name not in home}
    own = [group for group in method.kept if group != HOME]
    found = [*of_names(method), *of_flags(method), *of_home(method, model)]
    local = Local(
        config=AlgorithmConfig(), optimizer=OptimizerConfig(name="sgd"), steps=3, rate=0.1,
        start={name: each.detach().clone() for name, each in parameters.items()} if method.corrects else {},
        sent=zeros(method.sent, trained), kept=zeros(own, parameters),
    )  # fmt: skip
    try:
        method.correct(parameters, local)
    except AttributeError as error:
        return [*found, f"correct: a frozen parameter has no gradient ({error})"]
    returned, kept = method.finish(parameters, local)
    found += differing("finish returns", returned, zeros(method.returned, trained))
    found += differing("finish keeps", kept, zeros(own, parameters))
    if not found:
        found += differing("step makes", method.step(local.sent, returned, 0.5), local.sent)
    factors = method.factors([2, 4], [1.0, 3.0])
    if len(factors) != 2 or not all(isfinite(factor) and factor > 0 for factor in factors):
        found.append(f"factors: {factors}, not a positive number for each of two sites")
    return found


def of_names(method: FedAvg) -> list[str]:
    found = []
    for groups in (method.sent, method.returned, method.kept):
        names = [group.name for group in groups]
        found += [f"group {name}: declared twice" for name in {*names} if names.count(name) > 1]
    for group in dict.fromkeys((*method.sent, *method.returned, *(each for each in method.kept if each is not HOME))):
        if not re.fullmatch("[a-z_]+", group.name):
            found.append(f"group {group.name!r}: small letters alone; a slash parts a group from a parameter")
        if group.name in RESERVED | {HOME.name}:
            found.append(f"group {group.name}: taken")
        for other, theirs in ALGORITHMS.items():
            if any(each.name == group.name and each is not group for each in (*theirs.returned, *theirs.sent)):
                found.append(f"group {group.name}: of {other}, which a hospital's policy.groups may mean; import that")
    return found


def of_flags(method: FedAvg) -> list[str]:
    def written(name: str) -> bool:
        return getattr(type(method), name) is not getattr(FedAvg, name)

    found = [f"{name}: written, but {flag} is False" for name, flag in (("correct", "corrects"), ("factors", "scales"))
             if written(name) and not getattr(method, flag)]  # fmt: skip
    return found + ["step: not written, so what is sent stays zero"] * (bool(method.sent) and not written("step"))


def of_home(method: FedAvg, model: nn.Module) -> list[str]:
    home, found = method.at_home(model), []
    if (HOME in method.kept) != bool(home):
        found.append("at_home: goes with kept = (HOME,), and neither without the other")
    if odd := home - model.state_dict().keys():
        found.append(f"at_home: {min(odd)} is no tensor of the model")
    return found + ["at_home: every parameter"] * ({*dict(model.named_parameters())} <= home)


def differing(what: str, groups: Groups, declared: Groups) -> list[str]:
    if groups.keys() != declared.keys():
        return [f"{what} {', '.join(sorted(groups)) or 'no group'}, and declared is {', '.join(declared) or 'none'}"]
    shapes, wanted = ({(g, n): t.shape for g in each for n, t in each[g].items()} for each in (groups, declared))
    return [f"{what} {group}/{name} of another name or shape" for group, name in sorted(
        key for key in shapes.keys() | wanted.keys() if shapes.get(key) != wanted.get(key))][:1]  # fmt: skip


MINE = Group("mine")


def made(base: type[FedAvg] = FedAvg, **changes: Any) -> FedAvg:
    """A method with these attributes; of functions those that are given `self`."""
    return type("Mine", (base,), changes)()


def ones(parameters: Any, name: str = "mine") -> Groups:
    return {name: {key: each.detach() * 0 + 1 for key, each in parameters.items()}}


def blind(self: FedAvg, parameters: Any, local: Local) -> None:
    for parameter in parameters.values():
        parameter.grad.mul_(0.5)


def flat(self: FedAvg, parameters: Any, local: Local) -> tuple[Groups, Groups]:
    return {"mine": {name: each.detach().flatten() for name, each in parameters.items()}}, {}


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        (made(Scaffold, sent=(Group("control"),)), "group control: of scaffold"),
        (made(returned=(Group("exp_avg"),), finish=lambda s, p, _: (ones(p, "exp_avg"), {})), "group exp_avg: taken"),
        (made(returned=(Group("home"),), finish=lambda s, p, _: (ones(p, "home"), {})), "group home: taken"),
        (made(returned=(Group("a/b"),), finish=lambda s, p, _: (ones(p, "a/b"), {})), "group 'a/b': small letters"),
        (made(sent=(MINE,)), "step: not written"),
        (made(sent=(MINE,), step=lambda s, groups, folded, part: {}), "step makes no group, and declared is mine"),
        (made(finish=lambda s, p, _: (ones(p), {})), "finish returns mine, and declared is none"),
        (made(returned=(MINE,)), "finish returns no group, and declared is mine"),
        (made(returned=(MINE,), finish=flat), "finish returns mine/.* of another name or shape"),
        (made(finish=lambda s, p, _: ({}, ones(p))), "finish keeps mine, and declared is none"),
        (made(kept=(MINE,)), "finish keeps no group, and declared is mine"),
        (made(corrects=True, correct=blind), "correct: a frozen parameter has no gradient"),
        (made(correct=lambda s, p, _: None), "correct: written, but corrects is False"),
        (made(factors=lambda s, steps, weights: [1.0] * len(steps)), "factors: written, but scales is False"),
        (made(scales=True, factors=lambda s, steps, weights: [0.0]), r"factors: \[0.0\]"),
        (made(FedBN, kept=()), "at_home: goes with kept"),
        (made(kept=(HOME,)), "at_home: goes with kept"),
        (made(FedBN, at_home=lambda s, m: frozenset(m.state_dict())), "at_home: every parameter"),
        (made(FedBN, at_home=lambda s, m: frozenset({"nowhere.weight"})), "at_home: nowhere.weight is no tensor"),
    ],
)  # fmt: skip
def test_a_method_that_does_not_is_named(method: FedAvg, fault: str, model: nn.Module) -> None:
    assert re.search(fault, "\n".join(faults(method, model)))
