"""A round that does not fit into memory is tried once more with half the patch, and what that costs is written down."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from judged_site import admitted, evaluate, train
from safetensors.torch import load
from torch.testing import assert_close

import gliofed.client.round.private_work
import gliofed.client.round.training
import gliofed.client.round.work
from gliofed.client.round.ledger import read_ledger
from gliofed.client.round.memory import ran_out
from gliofed.client.round.policy import DeclinedError
from gliofed.client.round.training import TrainResult
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.messages import Request
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.mock import MockConfig, write_mock

PRIVATE = ("privacy=dp_sgd", "privacy.batch=10000", "privacy.patches=1", "data.validation=0", "train.steps=1")
Config = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_mock(MockConfig(patients=4, size=(16, 16, 16), radius_max=6), root, 1)
    return root


@pytest.fixture
def site(scans: Path, tmp_path: Path) -> SiteConfig:
    return SiteConfig(name="a", root=str(scans), labels="mock", work=str(tmp_path / "work"), device="cpu")


@pytest.fixture
def run_config(run_config: Config) -> Config:
    """Runs whose patch can be halved once."""
    return lambda *words: run_config("data.patch=[16,16,16]", *words)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The edges that were trained with, voxels; those above 8 do not fit."""
    edges: list[int] = []

    def steps(model: object, drawn: Iterable[Batch], *rest: Any) -> TrainResult:
        edges.append(next(iter(drawn)).image.shape[-1])
        if edges[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return TrainResult(loss=1.0, steps=2)

    monkeypatch.setattr(gliofed.client.round.work, "train_one_round", steps)
    return edges


def request_of(config: RunConfig, round: int = 1, run_id: str = "r") -> Request:
    weights = weights_to_bytes(travelling(initial_model(config)))
    return Request(run_id=run_id, round=round, config=config, weights=weights)


def patches(site: SiteConfig) -> list[list[int]]:
    """Smaller ones that the site's log tells of."""
    lines = (Path(site.work) / "audit/audit.jsonl").read_text().splitlines()
    return [event["patch"] for event in map(json.loads, lines) if event["event"] == "smaller_patch"]


def test_once_more_and_then_for_the_rest_of_the_run(site: SiteConfig, run_config: Config, tried: list[int]) -> None:
    """Each round would fail first otherwise; another run may have another model, and begins anew."""
    assert train(site, request_of(run_config())).status == "ok"
    assert tried == [16, 8]
    assert patches(site) == [[8, 8, 8]]
    train(site, request_of(run_config(), round=2))
    assert tried == [16, 8, 8]
    train(site, request_of(run_config(), run_id="s"))
    assert tried == [16, 8, 8, 16, 8]


def test_it_is_the_training_that_half_the_patch_gives(
    site: SiteConfig, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle is a run that asked for that patch: the same random words, so the same update."""
    asked = train(replace(site, work=site.work + "2"), request_of(run_config("data.patch=[8,8,8]")))
    real, failed = gliofed.client.round.training.train_one_round, []

    def once(*words: Any) -> TrainResult:
        if not failed:
            failed.append(True)
            raise MemoryError
        return real(*words)

    monkeypatch.setattr(gliofed.client.round.work, "train_one_round", once)
    reply = train(site, request_of(run_config()))
    assert_close(load(reply.update), load(asked.update), rtol=0, atol=0)
    assert failed


def test_where_half_does_not_fit_either(site: SiteConfig, run_config: Config, tried: list[int]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        train(site, request_of(run_config("data.patch=[32,32,32]")))
    assert tried == [32, 16]
    with pytest.raises(torch.OutOfMemoryError):  # known now: one try
        train(site, request_of(run_config("data.patch=[32,32,32]"), round=2))
    assert tried == [32, 16, 16]


def test_other_faults_are_not_tried_again(
    site: SiteConfig, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(*_: object) -> TrainResult:
        calls.append(1)
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(gliofed.client.round.work, "train_one_round", broken)
    with pytest.raises(RuntimeError, match="shape"):
        train(site, request_of(run_config()))
    assert len(calls) == 1 and not patches(site)


def test_nothing_smaller_where_nobody_may_note_it(site: SiteConfig, run_config: Config, tried: list[int]) -> None:
    """A round that is not what was asked for must be in the log."""
    train(site, request_of(run_config("data.patch=[8,8,8]")))
    second = admitted("train", site, request_of(run_config(), round=2))
    (Path(site.work) / "audit/audit.jsonl").write_text("no line of a log\n")
    with pytest.raises(DeclinedError) as refused:
        gliofed.client.round.work.train(second)
    assert (refused.value.code, tried) == ("audit", [8, 16])


def test_evaluation(site: SiteConfig, run_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """It slides the smaller window; a broken note of the earlier one is no obstacle."""
    windows = []

    def measure(model: object, volumes: object, data: Any, device: object) -> dict[str, float]:
        windows.append(data.patch[0])
        if windows[-1] > 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return {"loss": 1.0}

    monkeypatch.setattr("gliofed.shared.tasks.segmentation.Segmentation.measure", staticmethod(measure))
    Path(site.work).mkdir()
    (Path(site.work) / "smaller_patch.json").write_text("{")
    config = run_config("data.validation=0.9")
    assert evaluate(site, request_of(config)).status == "ok"
    assert windows[:2] == [16, 8] and set(windows[1:]) == {8}


def test_a_private_round_is_charged_twice(
    site: SiteConfig, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first try drew is spent, whether or not it left; where the budget holds one only, there is no second."""
    patches = []
    real = gliofed.client.round.private_work.train_privately

    def private(model: Any, patients: Any, sample: Any, *rest: Any) -> TrainResult:
        patches.append(1)
        if len(patches) % 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, patients, sample, *rest)

    monkeypatch.setattr(gliofed.client.round.private_work, "train_privately", private)
    config = run_config(*PRIVATE, "rounds=4")
    reply = train(site, request_of(config))
    ledger = read_ledger(site.folder.ledger)
    assert ledger is not None and reply.status == "ok"
    assert [(charge.what, charge.round) for charge in ledger.charges] == [("count", 1), ("train", 1), ("train", 1)]
    once = replace(ledger, lines=ledger.charges[:2]).epsilon()
    tight = PolicyConfig(max_epsilon=(once + ledger.epsilon()) / 2)
    with pytest.raises(DeclinedError, match=r"policy\.max_epsilon") as refused:
        train(replace(site, work=site.work + "2", policy=tight), request_of(config))
    assert refused.value.code == "budget"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("mmap: Cannot allocate memory (12)"),
        RuntimeError("x"),
    ],
)
def test_words(error: Exception) -> None:
    assert ran_out(error) == (str(error) != "x")
