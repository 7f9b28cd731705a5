"""Each reason for which an update does not count, and that honest ones do."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from server.round.gate import Verdicts, judge
from server.round.spool import Spool
from shared.codec import encode
from shared.config import RunConfig
from shared.messages import Reply

MODEL = {"w": torch.zeros(2, 3), "b": torch.zeros(2)}
Judge = Callable[..., Verdicts]


def update(size: float = 1.0) -> dict[str, Tensor]:
    return {name: torch.full_like(tensor, size) for name, tensor in MODEL.items()}


@pytest.fixture
def judged(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Judge:
    """Judge replies of sites a, b, c, ...; each of 5 admitted patients, runs of 2 local steps."""

    def make(*replies: Reply, earlier: Sequence[float] = (), overrides: Sequence[str] = ()) -> Verdicts:
        spool = Spool(tmp_path, 1, "fp32")
        for name, reply in zip("abcdefgh", replies, strict=False):
            spool.add(name, reply, cohort=5, node=1)
        return judge(spool.replies(), MODEL, earlier, run_config(*overrides))

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
    assert judged(reply(), reply(update(3)), reply(update(0.1))).refused == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (reply(update(float("nan"))), "not finite: w"),
        (reply(update(float("inf"))), "not finite"),
        (reply(update(100)), "norm"),
        (reply(update() | {"b": torch.zeros(3)}), r"wrong shape: b is \(3,\), not \(2,\)"),
        (reply({"w": MODEL["w"]}), "wrong names: 1"),
        (reply(update() | {"extra": torch.zeros(1)}), "wrong names: 1"),
        (reply(patients=0), "0 patients"),
        (reply(patients=6), "6 patients, more than the 5 of its cohort"),
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
    refused = judged(reply(), bad, reply(), reply()).refused
    assert list(refused) == ["b"]
    assert re.search(reason, refused["b"])


def test_two_sites_are_measured_by_earlier_rounds(judged: Judge) -> None:
    """Of two, the median would lie between the honest and the hundredfold one, and refuse neither."""
    assert judged(reply(), reply(update(100)), earlier=[1.4]).refused.keys() == {"b"}
    assert judged(reply(), reply(update(100))).refused == {}


def test_norm_is_for_one_local_step(judged: Judge) -> None:
    """sqrt(8) over 2 steps."""
    assert judged(reply()).norms["a"] == pytest.approx(8**0.5 / 2)


def test_updates_of_nothing_do_not_open_the_gate(judged: Judge) -> None:
    """Two zero updates make a median of zero; what earlier rounds were like is still known."""
    zero = reply(update(0))
    assert judged(zero, reply(update(1e6)), zero, earlier=[1.4]).refused.keys() == {"b"}


def test_a_large_hospital_is_no_attack(judged: Judge) -> None:
    """With epochs it takes many more steps, and so moves further; FeTS has 511 patients against a median of 13."""
    epochs = ["train.steps=null", "train.epochs=100"]  # of 5 patients in batches of 2: at most 300 steps
    large = reply(update(40), steps=80)
    assert judged(reply(), large, reply(), reply(), overrides=epochs).refused == {}
    assert judged(reply(), reply(update(40), steps=301), reply(), reply(), overrides=epochs).refused.keys() == {"b"}


def test_gate_off_still_refuses_what_cannot_be_folded(judged: Judge) -> None:
    off = ["gate.enabled=false"]
    bad = [reply(update(float("nan"))), reply(update(100)), reply(patients=0), reply({"w": MODEL["w"]})]
    assert judged(*bad, overrides=off).refused.keys() == {"d"}
