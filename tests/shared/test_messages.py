"""Requests and replies through Flower's records."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from gliofed.shared.config import RunConfig
from gliofed.shared.messages import MessageError, Reply, Request


def test_a_request_comes_back(run_config: Callable[..., RunConfig]) -> None:
    request = Request(run_id="r", round=3, config=run_config(), weights=b"weights")
    assert Request.from_records(request.to_records()) == request


def test_a_changed_config_is_noticed(run_config: Callable[..., RunConfig]) -> None:
    records = Request(run_id="r", round=1, config=run_config()).to_records()
    records["request"]["config"] = run_config("train.lr=9").as_json
    with pytest.raises(MessageError, match="hash"):
        Request.from_records(records)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda head: head.update({"config": head["config"].replace('"rounds":2', '"rounds":9,"rounds":2')}),
        lambda head: head.update({"config": head["config"].replace(",", ", ")}),
        lambda head: head.update({"config": [head["config"]]}),
        lambda head: head.update({"config": head["config"].encode()}),
        lambda head: head.update({"round": 10**9}),
        lambda head: head.update({"round": -1}),
        lambda head: head.update({"round": 1.5}),
        lambda head: head.update({"round": "1"}),
    ],
)
def test_a_request_has_one_form(run_config: Callable[..., RunConfig], spoil: Callable[[ConfigRecord], object]) -> None:
    """The hash is of the run that was read: it says nothing of a key that was there twice."""
    records = Request(run_id="r", round=1, config=run_config()).to_records()
    spoil(records.config_records["request"])
    with pytest.raises(MessageError):
        Request.from_records(records)


def test_a_test_is_asked_for_in_a_run_that_has_one(run_config: Callable[..., RunConfig]) -> None:
    """A site of an earlier version sends and knows no part; of another part nobody knows the patients."""
    request = Request(run_id="r", round=1, config=run_config("data.test=0.2"), weights=b"w", part="test")
    assert Request.from_records(request.to_records()) == request
    records = request.to_records()
    del records.config_records["request"]["part"]
    assert Request.from_records(records).part == ""
    for odd in (replace(request, config=run_config()), replace(request, part="training")):
        with pytest.raises(MessageError, match=r"a test, in a run without data\.test|a part that is none"):
            Request.from_records(odd.to_records())


def test_key_tells_run_round_and_weights_apart(run_config: Callable[..., RunConfig]) -> None:
    one = Request(run_id="r", round=1, config=run_config(), weights=b"w")
    others = [replace(one, run_id="q"), replace(one, round=2), replace(one, weights=b"v")]
    others.append(replace(one, config=run_config("codec=int8")))
    assert len({one.key, *(other.key for other in others)}) == 5
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
        lambda records: records["metrics"].update({"num-examples": -1}),
        lambda records: records["metrics"].update({"num-examples": 10**300}),
        lambda records: records["metrics"].update({"dice": 1e308}),
        lambda records: records["metrics"].update({"\x1b[2J": 1.0}),
        lambda records: records["metrics"].update({"epsilon": float("nan")}),
        lambda records: records["metrics"].update({"epsilon": -1.0}),
        lambda records: records["metrics"].update({f"m{number}": 1.0 for number in range(100)}),
        lambda records: records["reply"].update({"left_out": "[" * 100_000}),
        lambda records: records["reply"].update({"left_out": '{"\x1b": 1}'}),
    ],
)
def test_an_odd_reply_is_an_error_of_ours(spoil: Callable[[RecordDict], object]) -> None:
    """Whatever a site sends, the server's answer is MessageError and nothing else."""
    records = Reply(site="s", update=b"u").to_records()
    spoil(records)
    with pytest.raises(MessageError):
        Reply.from_records(records)


@pytest.mark.parametrize("run_id", ["../up", "/tmp/x", "", "a/b"])
def test_a_server_cannot_name_a_file_elsewhere(run_config: Callable[..., RunConfig], run_id: str) -> None:
    """The run's id is part of a file's name at the site."""
    with pytest.raises(MessageError):
        Request.from_records(Request(run_id=run_id, round=1, config=run_config()).to_records())


def test_empty_records_are_no_request() -> None:
    with pytest.raises(MessageError):
        Request.from_records(RecordDict({"request": ConfigRecord(), "metrics": MetricRecord()}))
