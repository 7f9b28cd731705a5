"""Requests and replies through Flower's records."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from shared.config import RunConfig
from shared.messages import MessageError, Reply, Request


def test_a_request_comes_back(run_config: Callable[..., RunConfig]) -> None:
    request = Request(run_id="r", round=3, config=run_config(), weights=b"weights")
    assert Request.from_records(request.to_records()) == request


def test_a_changed_config_is_noticed(run_config: Callable[..., RunConfig]) -> None:
    records = Request(run_id="r", round=1, config=run_config()).to_records()
    records["request"]["config"] = run_config("train.lr=9").to_json()
    with pytest.raises(MessageError, match="hash"):
        Request.from_records(records)


def test_key_tells_run_round_and_weights_apart(run_config: Callable[..., RunConfig]) -> None:
    one = Request(run_id="r", round=1, config=run_config(), weights=b"w")
    others = [replace(one, run_id="q"), replace(one, round=2), replace(one, weights=b"v")]
    assert len({one.key, *(other.key for other in others)}) == 4
    assert replace(one).key == one.key


def test_a_reply_comes_back() -> None:
    reply = Reply(site="s", patients=3, steps=2, metrics={"loss": 0.5}, left_out={"data": 1}, update=b"update")
    assert Reply.from_records(reply.to_records()) == reply


def test_num_examples_counts_patients() -> None:
    """Flower's own strategies weigh by this name."""
    assert Reply(site="s", patients=3).to_records()["metrics"]["num-examples"] == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda records: records.pop("reply"),
        lambda records: records.pop("update"),
        lambda records: records["reply"].update({"code": "no such code"}),
        lambda records: records["reply"].update({"left_out": "[]"}),
        lambda records: records["metrics"].update({"num-examples": float("inf")}),
        lambda records: records["metrics"].update({"loss": [1.0, 2.0]}),
        lambda records: records["metrics"].pop("steps"),
    ],
)
def test_an_odd_reply_is_an_error_of_ours(spoil: Callable[[RecordDict], object]) -> None:
    """Whatever a site sends, the server's answer is MessageError and nothing else."""
    records = Reply(site="s", update=b"u").to_records()
    spoil(records)
    with pytest.raises(MessageError):
        Reply.from_records(records)


def test_empty_records_are_no_request() -> None:
    with pytest.raises(MessageError):
        Request.from_records(RecordDict({"request": ConfigRecord(), "metrics": MetricRecord()}))
