"""History: a line an event, and means that one odd site cannot spoil."""

from pathlib import Path

import pytest

from server.history import History, as_json, weighted


def test_a_half_written_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(path).append({"event": "start"})
    with path.open("a") as file:
        file.write('{"event":"rou')
    history = History(path)
    before = path.read_bytes()
    assert [event["event"] for event in history.events()] == ["start"]
    assert path.read_bytes() == before  # a reader may look while another process writes
    history.repair()
    history.append({"event": "end"})
    assert [event["event"] for event in history.events()] == ["start", "end"]


def test_global_metrics_weigh_by_validation_patients() -> None:
    assert weighted([({"dice": 0.5}, 1), ({"dice": 0.9}, 3)]) == {"dice": pytest.approx(0.8)}


def test_a_metric_that_is_withheld_or_not_finite_does_not_enter() -> None:
    scores = [({"dice": 0.5}, 2), ({"dice": float("nan")}, 9), ({}, 4), ({"dice": 0.1}, 0)]
    assert weighted(scores) == {"dice": 0.5}
    assert weighted([]) is None


def test_metrics_as_json() -> None:
    assert as_json({"loss": float("nan"), "dice": 0.5}) == {"loss": None, "dice": 0.5}
    assert as_json({}) is None
