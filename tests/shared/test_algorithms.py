"""Methods of federated optimisation against loops that are written as their papers are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_federation import model_of, rounds_of
from torch import nn
from torch.testing import assert_close

from gliofed.client.round.training import train_one_round
from gliofed.server.round.model import initial_model
from gliofed.shared.algorithms import ALGORITHMS, AlgorithmConfig
from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.fednova import FedNova
from gliofed.shared.algorithms.groups import Group, Local
from gliofed.shared.algorithms.optimizers import ADAMW
from gliofed.shared.algorithms.scaffold import Scaffold
from gliofed.shared.codec import travelling
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.tasks.segmentation import Segmentation
from gliofed.simulation.simulate import simulate

Config = Callable[..., RunConfig]
STEPS = 3


@pytest.fixture
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.rand(2, 2, 1, 8, 8, 8, generator=generator) for _ in range(STEPS)]
    return [Batch(image, (mask > 0.5).float()) for image, mask in drawn]


def trained(run: RunConfig, batches: list[Batch], algorithm: AlgorithmConfig) -> nn.Module:
    model = initial_model(run)
    local = Local(config=algorithm, optimizer=ADAMW, steps=STEPS, rate=run.train.lr)
    train_one_round(model, batches, Segmentation(), run.train, STEPS, torch.device("cpu"), local)
    return model


@pytest.mark.parametrize("clip", [None, 0.1])
def test_fedprox_is_its_loss(run_config: Config, batches: list[Batch], clip: float | None) -> None:
    """The term is written into the loss, and PyTorch derives it; clipping acts on the whole gradient."""
    run = run_config(f"train.clip={'null' if clip is None else clip}")
    mu, model = 10.0, initial_model(run).train()
    start = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.train.lr, weight_decay=run.train.weight_decay)
    for batch in batches:
        optimizer.zero_grad()
        distance = sum((now - then).square().sum() for now, then in zip(model.parameters(), start, strict=True))
        (Segmentation().loss(model(batch.image), batch.target) + mu / 2 * distance).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    ours = trained(run, batches, AlgorithmConfig(name="fedprox", mu=mu))
    assert_close(travelling(ours), travelling(model), rtol=1e-4, atol=1e-6)
    plain = trained(run, batches, AlgorithmConfig())
    assert not torch.allclose(next(iter(travelling(plain).values())), next(iter(travelling(ours).values())), rtol=1e-3)


def test_fedprox_without_its_term_is_fedavg(run_config: Config, batches: list[Batch]) -> None:
    plain, none = (trained(run_config(), batches, AlgorithmConfig(name=name, mu=0)) for name in ("fedavg", "fedprox"))
    assert_close(travelling(none), travelling(plain), rtol=0, atol=0)


def test_a_federation_trains_by_it(values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The setting reaches each site, and the run says it."""
    models = []
    for name, words in {"fedavg": (), "fedprox": ("algorithm=fedprox", "algorithm.mu=100")}.items():
        out = tmp_path / name
        assert simulate(values("sites=2", "rounds=1", "round.evaluate_every=0", *words, f"out={out}")).status == "done"
        models.append(model_of(out))
    assert json.loads((out / "run.json").read_text())["run"]["algorithm"]["mu"] == 100
    assert any(not torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_fednova_has_the_effective_steps_over_a_site_s_own() -> None:
    """Of two, four and four steps at weights 1, 1 and 2 the mean is 14 / 4."""
    assert FedNova().factors([2, 4, 4], [1, 1, 2]) == [3.5 / 2, 3.5 / 4, 3.5 / 4]


@pytest.mark.parametrize("weights", [(3, 5, 4), (0.1, 0.7, 0.3), (1 / 3, 16.0, 1e-9)])
def test_fednova_leaves_equal_steps_as_they_are(weights: tuple[float, ...]) -> None:
    """Exactly, also where fold.max_share made a weight a fraction."""
    assert FedNova().factors([7] * 3, weights) == [1.0] * 3


@pytest.mark.slow
def test_with_equal_steps_fednova_is_fedavg(values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Bit for bit, over two rounds of three sites with other numbers of patients."""
    models = []
    for name in ("fedavg", "fednova"):
        words = (f"algorithm={name}", "optimizer=sgd", "train.lr=0.05", "sites=3", "data.patients=5")
        assert simulate(values(*words, "round.evaluate_every=0", f"out={tmp_path / name}")).status == "done"
        models.append(model_of(tmp_path / name))
    assert_close(models[1], models[0], rtol=0, atol=0)


def test_fednova_is_for_plain_sgd(run_config: Config) -> None:
    """Private steps are SGD too, of which every site takes as many."""
    for words in ((), ("optimizer=sgd", "optimizer.momentum=0.9")):
        with pytest.raises(ConfigError, match="algorithm=fednova without plain SGD"):
            run_config("algorithm=fednova", *words)
    run_config("algorithm=fednova", "privacy=dp_sgd")


def test_fedbn_needs_norms(run_config: Config) -> None:
    """Without any it would be FedAvg under another name."""
    words = ("algorithm=fedbn", "model=cnn_lstm")
    with pytest.raises(ConfigError, match="algorithm=fedbn with model=cnn_lstm: it has no norms"):
        run_config(*words)
    run_config(*words, "model.as_published=true")


def test_a_run_that_names_no_algorithm_is_what_it_was(run_config: Config) -> None:
    """Its hash is in approvals, logs and folders of runs that are to go on."""
    run = run_config()
    assert "algorithm" not in json.loads(run.as_json) and parse(RunConfig, run.as_json).hash == run.hash
    other = run_config("algorithm=fedprox")
    assert other.hash != run.hash and parse(RunConfig, other.as_json) == other


def test_what_has_no_room_for_it_is_refused(run_config: Config) -> None:
    with pytest.raises(ConfigError, match="an algorithm that corrects steps with privacy=dp_sgd"):
        run_config("algorithm=fedprox", "privacy=dp_sgd")
    with pytest.raises(ConfigError, match=r"algorithm\.name=no: must be 'fedavg', 'fedprox', "):
        run_config("algorithm.name=no")


class Forgetful(FedAvg):
    """It declares a group that it does not keep."""

    kept = (Group("mine"),)
    corrects = True

    def correct(self, parameters: Any, local: Local) -> None:
        """Read the group."""
        for name, parameter in parameters.items():
            parameter.grad += local.kept["mine"][name]


def test_a_group_that_was_not_kept_is_not_zero(
    values: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros are for a site that kept nothing yet: from the second round on the method would be another one."""
    monkeypatch.setitem(ALGORITHMS, "forgetful", Forgetful())
    words = ("algorithm.name=forgetful", "sites=2", "rounds=2", "round.evaluate_every=0", f"out={tmp_path / 'out'}")
    assert simulate(values(*words)).status == "failed"
    assert [event["round"] for event in rounds_of(tmp_path / "out")] == [1]


def test_groups_have_no_room_in_a_private_step(run_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls no `finish`: what a site keeps would stay zero."""
    monkeypatch.setitem(ALGORITHMS, "mine", type("Mine", (FedAvg,), {"kept": (Group("mine"),)})())
    with pytest.raises(ConfigError, match="an algorithm with groups of its own with privacy=dp_sgd"):
        run_config("algorithm.name=mine", "privacy=dp_sgd")
    run_config("algorithm=fedbn", "privacy=dp_sgd")


def test_a_site_that_lost_its_control_variate_returns_the_right_one() -> None:
    """Or that never updates it: what it returns is the mean of its gradients, whatever it began from.

    Of a sum of changes, the server had its earlier part twice, for ever.
    """
    gradients, rate, server = torch.tensor([[1.0, 2.0], [3.0, -2.0]]), 0.1, torch.tensor([5.0, -5.0])
    for own in (torch.zeros(2), torch.tensor([0.5, 7.0])):
        start = torch.ones(2)
        end = start - rate * sum(gradient - own + server for gradient in gradients)
        kept, sent = {"control": {"w": own}}, {"control": {"w": server}}
        config = AlgorithmConfig(name="scaffold")
        local = Local(config=config, optimizer=ADAMW, steps=2, rate=rate, start={"w": start}, sent=sent, kept=kept)
        returned, kept = Scaffold().finish({"w": end}, local)
        assert_close(returned["control"]["w"], gradients.mean(0))
        assert_close(kept, returned)
    moved = Scaffold().step(sent, returned, part=0.5)
    assert_close(moved["control"]["w"], (server + gradients.mean(0)) / 2)


def test_a_fedprox_run_of_the_first_version_keeps_its_hash(run_config: Config) -> None:
    """Settings that came after it are not in its JSON."""
    values = json.loads(run_config("algorithm=fedprox").as_json)
    assert values["algorithm"] == {"mu": 0.01, "name": "fedprox"}
