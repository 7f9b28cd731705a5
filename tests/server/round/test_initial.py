"""Round 0: given weights are measured once, before anything is trained."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gliofed.server.round.answers import Absent
from gliofed.server.round.history import History
from gliofed.server.round.initial import measure_given
from gliofed.server.round.progress import RoundProgress
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request

MEASURED = Reply(site="", patients=2, metrics={"dice": 0.5})
FAILED = Reply(site="", status="failed", code="error")
AWAY = Absent("missing", "not connected")


class Sites:
    """Site a measures, or fails; b is away."""

    def __init__(self, answer: Reply) -> None:
        self.answer, self.asked = answer, list[tuple[str, int]]()

    def roll(self, round: int) -> tuple[dict[str, int], dict[str, Absent]]:
        return {"a": 1}, {"b": AWAY}

    def ask(self, kind: str, request: Request, nodes: Mapping[str, int]) -> Iterator[tuple[str, Reply]]:
        self.asked.append((kind, request.round))
        yield from ((site, self.answer) for site in nodes)

    def agreed(self, node: int) -> int | None:
        return None


Measure = Callable[..., tuple[list[dict[str, Any]], list[tuple[str, int]]]]


@pytest.fixture
def measured(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Measure:
    def measure(*words: str, answer: Reply = MEASURED, times: int = 1) -> tuple[list[dict[str, Any]], list[Any]]:
        sites: Any = Sites(answer)
        history = History(tmp_path / "history.jsonl")
        request = Request(run_id="run", round=0, config=run_config(*words), weights=b"1234")
        for _ in range(times):
            measure_given(sites, history, request, RoundProgress(2))
        return history.events(), sites.asked

    return measure


def test_the_event_has_the_metrics_and_who_was_away(measured: Measure) -> None:
    (event,), asked = measured()
    assert asked == [("evaluate", 0)]
    assert (event["event"], event["round"], event["global"]) == ("initial", 0, {"dice": 0.5})
    a = {"status": "counted", "reason": None, "evaluate": {"dice": 0.5}, "evaluated": 2, "bytes_down": 4}
    b = {"status": "missing", "reason": "not connected", "evaluate": None, "evaluated": None, "bytes_down": 0}
    assert event["sites"] == {"a": a, "b": b} and "evaluation_failed" not in event


def test_a_resumed_run_does_not_measure_again(measured: Measure) -> None:
    events, asked = measured(times=2)
    assert len(events) == len(asked) == 1


def test_a_run_that_evaluates_nothing_does_not_measure(measured: Measure) -> None:
    assert measured("round.evaluate_every=0") == ([], [])


def test_where_nobody_could_measure_the_run_goes_on_and_says_so(measured: Measure) -> None:
    (event,), _ = measured(answer=FAILED)
    assert event["global"] is None and "at 1 of 1 site evaluation failed" in event["evaluation_failed"]
