"""Each reason for which an update does not count, and that honest ones do."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gliofed.server.round.gate import Measures, judge
from gliofed.server.round.spool import Spool
from gliofed.shared.codec import encode
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply

MODEL = {"w": torch.zeros(2, 3), "b": torch.zeros(2)}
Judge = Callable[..., tuple[dict[str, str], dict[str, Measures]]]


def update(size: float = 1.0) -> dict[str, Tensor]:
    return {name: torch.full_like(tensor, size) for name, tensor in MODEL.items()}


@pytest.fixture
def judged(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Judge:
    """Judge replies of sites a, b, c, ...; each of 5 admitted patients, runs of 2 local steps."""

    def make(*replies: Reply, overrides: Sequence[str] = ()) -> tuple[dict[str, str], dict[str, Measures]]:
        spool = Spool(tmp_path, 1, "fp32")
        for name, reply in zip("abcdefgh", replies, strict=False):
            spool.add(name, reply, ceiling=5, node=1)
        return judge(spool.replies(), MODEL, ["w"], run_config(*overrides))

    return make


def hostile(codec: str = "fp32", scales: str = '{"w": 1, "b": 1}', dtype: str = "F32", shape: Any = (2,)) -> Reply:
    """A reply whose safetensors header was written by hand."""
    size = 0 if dtype != "F32" or 0 in shape else 8
    tensors = {"b": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, size]}}
    tensors["w"] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [size, size + 24]}
    header = json.dumps({"__metadata__": {"codec": codec, "scales": scales}, **tensors}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(size + 24)
    return Reply(site="x", patients=1, steps=1, update=data)


def reply(tensors: dict[str, Tensor] | None = None, patients: int = 3, steps: int = 2) -> Reply:
    return Reply(site="x", patients=patients, steps=steps, update=encode(tensors or update(), "fp32"))


def test_honest_updates_count(judged: Judge) -> None:
    assert judged(reply(), reply(update(3)), reply(update(0.1)))[0] == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reply(update(float("nan"))), "not finite: w"),
        (reply(update(float("inf"))), "not finite"),
        (reply(update() | {"b": torch.zeros(3)}), r"wrong shape: b is \(3,\), not \(2,\)"),
        (reply({"w": MODEL["w"]}), "wrong names: 1"),
        (reply(update() | {"extra": torch.zeros(1)}), "wrong names: 1"),
        (reply(patients=0), "0 patients"),
        (reply(steps=0), "0 local steps"),
        (reply(update(100), steps=1000), "1000 local steps, not 1 to 2"),
        (Reply(site="x", patients=1, steps=1, update=b"rubbish"), "no coded update"),
        (hostile(scales="[" * 100_000), "no coded update"),
        (hostile(scales='{"w": 1' + "0" * 400 + ', "b": 1}'), "no coded update"),
        (hostile(codec="x" * 10_000), "coded as 'xxx"),
        (hostile(dtype="F6_E2M3"), "cannot be read|F6_E2M3|no coded update"),
        (hostile(shape=[0, 2**63]), "cannot be read|wrong shape|no coded update"),
    ],
)
def test_one_bad_of_four_is_refused_with_its_reason(judged: Judge, bad: Reply, reason: str) -> None:
    refused = judged(reply(), bad, reply(), reply())[0]
    assert list(refused) == ["b"]
    assert re.search(reason, refused["b"])


def test_an_update_is_measured_by_its_parameters_and_each_buffer(judged: Judge) -> None:
    """Here w is trained, and b a buffer. How large they may be is another's to say."""
    measures = judged(reply(), reply(update(100)), reply(patients=0))[1]
    assert measures["a"] == Measures(norm=pytest.approx(6**0.5), peaks={"w": 1.0}, others={"b": pytest.approx(2**0.5)})
    assert measures["b"].norm == pytest.approx(100 * 6**0.5)
    assert measures.keys() == {"a", "b"}


def test_more_patients_than_agreed_are_cut(judged: Judge, tmp_path: Path) -> None:
    """The update itself may be honest; the number is named in the history."""
    assert judged(reply(patients=10**9))[0] == {}
    (spooled,) = Spool(tmp_path, 1, "fp32").replies()
    assert (spooled.patients, spooled.weight) == (10**9, 5)


def test_a_site_whose_number_counts_nothing_is_refused(tmp_path: Path, run_config: Callable[..., RunConfig]) -> None:
    """It said that it had none when it prepared; a sum of such weights is nothing to divide by."""
    spool = Spool(tmp_path, 1, "fp32")
    spool.add("a", reply(patients=5), ceiling=0, node=1)
    assert judge(spool.replies(), MODEL, ["w"], run_config())[0] == {"a": "0 patients"}


def test_steps_are_bounded_by_the_agreed_patients(judged: Judge) -> None:
    """With epochs a larger hospital takes more steps; of 5 patients in batches of 2 a hundred passes are 300."""
    epochs = ["train.steps=null", "train.epochs=100"]
    assert judged(reply(steps=300), overrides=epochs)[0] == {}
    assert judged(reply(steps=301, patients=10**9), overrides=epochs)[0].keys() == {"a"}


def test_steps_that_scale_an_update_are_those_of_its_patients(judged: Judge) -> None:
    """The clip grows with the root of the steps, and FedNova divides by them: fewer would get around it."""
    fednova = ("algorithm=fednova", "optimizer=sgd", "train.steps=null", "train.epochs=1", "train.batch=1")
    replies = reply(patients=3, steps=3), reply(patients=5, steps=1)
    assert judged(*replies, overrides=fednova)[0] == {"b": "1 local step, not 5, as 5 patients take"}
    assert judged(*replies, overrides=fednova[1:])[0] == {}
