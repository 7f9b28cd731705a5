"""Bounds that a site met are said of it, in each round and over the run, and why it was not tested."""

from gliofed.server.report.sentences import bounds_met, bounds_of_run, reasons_of_run

HONEST = {"status": "counted", "patients": 12, "size": 1.0, "share": 0.5}


def test_honest_sites_are_not_mentioned() -> None:
    assert bounds_met(HONEST) is None
    assert bounds_of_run([{"event": "round", "sites": {"a": HONEST}}, {"event": "end"}]) == []


def test_buffers_that_were_clipped_are_counted_and_the_most_clipped_named() -> None:
    met = bounds_met(HONEST | {"clipped_buffers": {"a.running_mean": 0.75, "b.running_var": 0.015}})
    assert met == "b.running_var and 1 more changed further than usual, clipped to 0.015 of that"


def test_a_run_names_each_site_with_its_last_round() -> None:
    lines = [HONEST | {"size": 3.0, "clipped": 0.6}, HONEST | {"size": 19.23, "clipped": 0.1}, HONEST]
    events = [{"event": "round", "sites": {"b": line, "a": HONEST}} for line in lines]
    said = "b: met a limit in 2 of 3 rounds, last: update of 19.2 times the usual size, clipped"
    assert bounds_of_run(events) == [said]


def test_why_a_site_was_not_tested_is_said_once() -> None:
    """The table has a dash for it; the same reason holds for both models."""
    measured = {"status": "measured", "reason": None}
    away = {"status": "not_measured", "reason": "evaluation missing: not connected"}
    models = {"last": {"sites": {"a": measured, "b": away}}, "best": {"sites": {"a": measured, "b": away}}}
    said = reasons_of_run([{"event": "start"}, {"event": "test", "models": models}])
    assert said == ["test: b not measured: evaluation missing: not connected"]
