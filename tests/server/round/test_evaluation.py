"""What an evaluation makes of the sites' answers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from gliofed.server.round.answers import Absent
from gliofed.server.round.evaluation import evaluate
from gliofed.server.round.history import Event, site_line
from gliofed.server.round.progress import RoundProgress
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request

FAILED = Reply(site="", status="failed", code="error")
WITHHELD = Reply(site="", status="declined", code="withheld")
MEASURED = Reply(site="", patients=2, metrics={"dice": 0.5})
GONE = Absent("missing", "not connected")
Evaluated = Callable[[Mapping[str, Reply | Absent]], tuple[Any, dict[str, Event]]]


class FakeSites:
    """Sites that answer as a test has it; who is Absent is not there."""

    def __init__(self, answers: Mapping[str, Reply | Absent]) -> None:
        self.answers = answers

    def roll(self, round: int) -> tuple[dict[str, int], dict[str, Absent]]:
        there = {site: number for number, site in enumerate(self.answers) if self.answers[site] != GONE}
        return there, dict.fromkeys(self.answers.keys() - there.keys(), GONE)

    def ask(self, kind: str, request: Request, nodes: Mapping[str, int]) -> Iterator[tuple[str, Reply | Absent]]:
        yield from ((site, self.answers[site]) for site in nodes)

    def agreed(self, node: int) -> int | None:
        return 3


UNDISCLOSED = Reply(site="", status="declined", code="undisclosed")


def test_what_a_private_site_does_not_disclose_is_no_failure(run_config: Callable[..., RunConfig]) -> None:
    """It may have too few validation patients for its policy, which would tell how many."""
    config, lines = run_config("privacy=dp_sgd"), {"a": site_line(status="counted")}
    sites: Any = FakeSites({"a": UNDISCLOSED})
    request = Request(run_id="run", round=1, config=config, weights=b"w")
    assert evaluate(sites, config, request, lines, RoundProgress(1))[1] is None


@pytest.fixture
def evaluated(run_config: Callable[..., RunConfig]) -> Evaluated:
    def ask(
        answers: Mapping[str, Reply | Absent],
    ) -> tuple[Any, dict[str, Event]]:
        lines = {site: site_line(status="counted") for site in answers}
        sites: Any = FakeSites(answers)
        config = run_config()
        request = Request(run_id="run", round=1, config=config, weights=b"w")
        return evaluate(sites, config, request, lines, RoundProgress(1)), lines

    return ask


def test_one_site_that_measures_is_enough(evaluated: Evaluated) -> None:
    found, lines = evaluated({"a": FAILED, "b": MEASURED})
    assert found == ({"dice": 0.5}, None)
    assert lines["b"]["evaluated"] == 2 and lines["a"]["evaluated"] is None


@pytest.mark.parametrize("policy", [{}, {"c": WITHHELD}])
def test_where_it_failed_at_every_site_it_says_so(evaluated: Evaluated, policy: dict[str, Reply]) -> None:
    """A run without a single metric looked like one that went well."""
    found, lines = evaluated({"a": FAILED, "b": FAILED, **policy})
    assert found[0] is None and found[1] is not None
    assert f"at 2 of {2 + len(policy)} sites evaluation failed: {lines['a']['reason'].split(': ')[1]}" in found[1]


def test_metrics_that_a_policy_keeps_are_no_failure(evaluated: Evaluated) -> None:
    """So it is in every private run."""
    found, lines = evaluated({"a": WITHHELD, "b": WITHHELD})
    assert found == (None, None) and "evaluation declined" in lines["a"]["reason"]


def test_who_went_after_training_is_named(evaluated: Evaluated) -> None:
    """Its update counts, and nothing told why it has no metrics."""
    found, lines = evaluated({"a": GONE, "b": MEASURED})
    assert found[1] is None and lines["a"]["reason"] == "evaluation missing: not connected"


@pytest.mark.parametrize("answers", [{}, {"b": WITHHELD}])
def test_who_is_not_known_to_a_server_that_was_restarted_is_named(
    run_config: Callable[..., RunConfig], answers: dict[str, Reply]
) -> None:
    """Killed after the last round, and resumed with nobody connected: the run ended done, and nobody was measured."""
    lines = {"a": site_line(status="counted"), **{site: site_line(status="counted") for site in answers}}
    sites: Any = FakeSites(answers)
    config = run_config("data.test=0.2")
    request = Request(run_id="run", round=1, config=config, weights=b"w", part="test")
    found, failed = evaluate(sites, config, request, lines, RoundProgress(1))
    assert found is None and failed is not None and "evaluation missing: not connected" in failed
    assert lines["a"]["reason"] == "evaluation missing: not connected"


def test_a_claim_beyond_the_agreed_number_is_a_failure(evaluated: Evaluated) -> None:
    found, _ = evaluated({"a": Reply(site="a", patients=4, metrics={"dice": 1.0})})
    assert found[1] is not None and "more than the 3 that were agreed" in found[1]


def test_what_was_said_before_stays(evaluated: Evaluated, run_config: Callable[..., RunConfig]) -> None:
    """A site that left out many cases may also fail to evaluate."""
    lines, config, sites = {"a": site_line(status="counted", reason="left out: 5 truncated")}, run_config(), None
    sites: Any = FakeSites({"a": FAILED})
    evaluate(sites, config, Request(run_id="run", round=1, config=config, weights=b"w"), lines, RoundProgress(1))
    assert lines["a"]["reason"].startswith("left out: 5 truncated; evaluation failed: ")
