"""Replies that are lost between machines: the same site is asked again, and one answer counts."""

from pathlib import Path

import pytest
from lossy_wire import A, Ask, B, Wire

from gliofed.server.round.answers import Absent
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import read_chain
from gliofed.shared.messages import Reply


@pytest.mark.parametrize("code", [3, 4, 5, 8])
def test_a_reply_that_flower_calls_lost_is_asked_for_again(ask: Ask, code: int) -> None:
    wire = Wire(losses=[code])
    answers = ask(wire)
    assert isinstance(answers["a"], Reply)
    assert sorted(wire.trained) == [A, A, B]


def test_a_site_that_went_away_is_asked_when_it_is_back(ask: Ask) -> None:
    wire = Wire(losses=[5], away=10)
    answers = ask(wire)
    assert isinstance(answers["a"], Reply)
    assert wire.trained.count(A) == 2


def test_a_cable_that_is_pulled_often_uses_up_no_ask(ask: Ask) -> None:
    """The deadline ends that; a site that fails by itself is asked three times."""
    assert isinstance(ask(Wire(losses=[5] * 5, away=2))["a"], Reply)


def test_a_site_that_stays_away_is_not_waited_for_in_later_rounds(ask: Ask) -> None:
    """It has no unanswered message, so it is no site that hangs: it may come back in any round."""
    answers = ask(Wire(losses=[5], away=10**9))
    assert answers["a"] == Absent("failed", "the site went away")


def test_a_request_is_asked_three_times_at_most(ask: Ask) -> None:
    wire = Wire(losses=[8] * 9)
    assert ask(wire)["a"] == Absent("failed", "the site's program was ended")
    assert wire.trained.count(A) == 3


def test_a_reply_that_is_lost_in_silence_shows_when_the_site_answers_something_else(ask: Ask) -> None:
    """Flower says nothing where a node could not announce its reply: the node is idle, and takes what comes next."""
    wire = Wire(losses=[None])
    assert isinstance(ask(wire)["a"], Reply)
    assert wire.trained.count(A) == 2
    assert wire.probes == 1


def test_a_site_that_works_for_long_is_not_asked_again(ask: Ask) -> None:
    """A second answer would be sent for nothing, however large it is; a probe is small."""
    wire = Wire(busy=120)  # looks, which take longer than round.retry
    answers = ask(wire)
    assert all(isinstance(answer, Reply) for answer in answers.values())
    assert sorted(wire.trained) == [A, B]


@pytest.mark.parametrize("code", [1, 2, 7])
def test_a_site_that_failed_is_not_asked_again(ask: Ask, code: int) -> None:
    wire = Wire(losses=[code])
    assert isinstance(ask(wire)["a"], Absent)
    assert wire.trained.count(A) == 1


def test_where_nothing_is_lost_nothing_is_asked_again(ask: Ask) -> None:
    """A simulation asks as it always did: its audit log must not depend on how fast the machine is."""
    wire = Wire(losses=[5], busy=60)
    assert ask(wire, lossy=False)["a"] == Absent("failed", "the site went away")
    assert wire.trained.count(A) == 1
    assert wire.probes == 0


def test_the_audit_log_has_every_time_that_a_site_was_asked(ask: Ask, tmp_path: Path) -> None:
    """Else a site's log could have requests that the server's knows nothing of."""
    ask(Wire(losses=[8]))
    events = read_chain(audit_file(tmp_path), "", None).events()
    of_a = [(event["event"], event["kind"]) for event in events if event["site"] == "a"]
    assert of_a[:2] == [("request", "prepare"), ("reply", "prepare")]
    assert of_a[2:] == [("request", "train"), ("absent", "train"), ("request", "train"), ("reply", "train")]
