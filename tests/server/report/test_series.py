"""What is drawn of a run: the series that its events hold."""

from math import nan  # one object, so that dictionaries that hold it can be equal

import pytest
from run_events import ODD, counted, event, full_run, run

from gliofed.server.report import series
from gliofed.server.round.history import site_line


def test_training_loss_is_the_mean_that_the_updates_have() -> None:
    """By patients, of counted sites; a site without patients weighs one, as in the round."""
    assert series.training_loss(ODD) == {1: 2.5, 2: 2.0, 3: nan, 4: 3.0, 5: 6.0}


def test_site_losses_have_a_gap_where_the_site_did_not_count() -> None:
    assert series.site_losses(ODD) == {
        "a": {1: 1.0, 2: 2.0, 3: nan, 4: 4.0, 5: nan},
        "b": {1: 3.0, 2: nan, 3: nan, 4: 2.0, 5: 6.0},
    }


def test_rounds_without_evaluation_are_not_gaps() -> None:
    """With evaluate_every=5 the line goes on from one evaluation to the next; a NaN breaks it."""
    assert series.validation(ODD, "dice") == {2: 0.25, 3: nan, 5: 0.5}
    assert series.validation(ODD, "loss") == {2: nan, 3: 0.5, 5: nan}
    lines = {"a": counted(1.0, evaluate={"dice": 0.5}), "b": counted(1.0)}
    events = [event(1, lines, {"dice": 0.5}), event(2, {"a": counted(1.0), "b": counted(1.0)})]
    assert series.site_metrics(events, "dice") == {"a": {1: 0.5}, "b": {1: nan}}


def test_given_weights_are_round_0() -> None:
    assert series.validation(full_run(), "dice") == {0: 0.125, 1: 0.5, 2: 0.625}
    assert series.site_metrics(full_run(), "dice")["a"] == {0: 0.125, 1: 0.5, 2: 0.75}


def test_metrics_are_told_from_their_regions_and_intervals() -> None:
    lines = {"a": counted(1.0, evaluate={"loss": 1.0, "auc": 0.5, "accuracy": 0.5, "accuracy_low": 0.25, "tp": 3.0})}
    assert series.metrics([event(1, lines)]) == ["accuracy", "auc"]
    assert series.regions([event(1, lines)], "accuracy") == []
    change = {"dice": 0.5, "dice_et": 0.5, "dice_change": 0.25, "dice_change_et": 0.25}  # change is no region
    changed = [event(1, {"a": counted(1.0, evaluate=change)})]
    assert series.metrics(changed) == ["dice", "dice_change"]
    assert (series.regions(changed, "dice"), series.regions(changed, "dice_change")) == (["et"], ["et"])
    assert (series.metrics(full_run()), series.regions(full_run(), "dice")) == (["dice"], ["et"])
    assert [series.headline(events) for events in ([event(1, lines)], full_run(), [])] == ["accuracy", "dice", "dice"]


def test_a_run_that_only_tests_shows_the_metric_of_its_task() -> None:
    """With round.evaluate_every=0 no round names a metric, and the report showed Dice without any value."""
    line = site_line(status="measured", evaluate={"loss": 1.0, "auc": None, "accuracy": 0.5}, evaluated=2)
    test = {"event": "test", "models": {"last": {"round": 1, "sites": {"a": line, "b": site_line()}, "global": None}}}
    assert series.headline([event(1, {"a": counted(1.0)}), test]) == "accuracy"
    assert series.known_metrics([event(1, {"a": counted(1.0)}), test]) == {"loss", "auc", "accuracy"}


def test_who_took_part_is_that_of_the_last_attempt() -> None:
    """A round that fails for want of a quorum is tried again, and then has another event of the same number."""
    assert series.statuses(full_run()) == {
        "a": {1: "counted", 2: "counted"},
        "b": {1: "counted", 2: "refused"},
        "c": {1: "not drawn", 2: "not drawn"},
    }
    assert series.statuses(ODD)["a"][6] == "counted"


def test_shares_are_those_of_the_fold_or_follow_from_the_patients() -> None:
    assert series.shares(full_run()) == {"a": {1: 0.75, 2: 1.0}, "b": {1: 0.25}}
    assert series.shares(ODD)["b"] == {1: 0.75, 4: 0.5, 5: pytest.approx(1 / 3)}


def test_bytes_and_seconds_are_those_of_each_round() -> None:
    lines = {"a": site_line(bytes_down=5, bytes_up=1), "b": site_line(bytes_down=7)}
    assert series.traffic([event(1, lines)], "bytes_down") == {1: 12.0}
    assert series.traffic([event(1, lines)], "bytes_up") == {1: 1.0}
    assert series.seconds(ODD) == dict.fromkeys(range(1, 7), 1.0)


def test_privacy_is_spent_by_site_or_by_the_aggregator() -> None:
    assert series.epsilons(full_run()) == {"a": {1: 1.0, 2: 2.0}, "b": {1: 0.5}}
    assert series.epsilons([event(1, {"a": counted(1.0)}) | {"epsilon": 0.5}]) == {"all sites": {1: 0.5}}
    assert series.epsilons(run(2)) == {}


def test_the_test_is_of_both_models() -> None:
    assert series.test_scores(full_run(), "dice") == {"last": (2, 0.375), "best": (1, 0.4375)}
    assert series.test_scores(full_run(), "auc") == {} == series.test_scores(run(1), "dice")
