"""The table of a run."""

import pytest
from rich.console import Console

from gliofed.server.report.table import WIDEST, measured_patients, results_table
from gliofed.server.round.history import site_line


def test_many_sites_are_counted_without_those_that_were_not_invited() -> None:
    lines = {f"site-{number}": site_line(status="counted", evaluate={"dice": 0.5}) for number in range(WIDEST)}
    lines["site-x"] = site_line(status="not_invited", reason="not in round.expected")
    event = {"event": "round", "round": 1, "seconds": 1.0, "sites": lines, "global": None}
    console = Console(record=True, width=200)
    console.print(results_table([event], "dice"))
    assert f"{WIDEST}/{WIDEST}" in console.export_text()


@pytest.mark.parametrize("sites", [2, WIDEST + 1])
def test_a_metric_of_few_patients_has_their_number(sites: int) -> None:
    """An accuracy of 1.000 from one patient says next to nothing."""
    lines = {f"s{n}": site_line(status="counted", evaluate={"dice": 0.5}, evaluated=5) for n in range(2, sites)}
    lines["s0"] = site_line(status="counted", evaluate={"dice": 1.0}, evaluated=1)
    lines["s1"] = site_line(status="refused", evaluate={"dice": 0.25}, evaluated=4)
    event = {"event": "round", "round": 1, "seconds": 1.0, "sites": lines, "global": {"dice": 0.75}}
    console = Console(record=True, width=200)
    console.print(results_table([event], "dice"))
    shown = console.export_text()
    assert "1.000 (n=1)" in shown and "0.250 (n=4)" in shown and "n=5" not in shown
    assert ("0.750 (n=1)" in shown) == (sites == 2)  # who was refused is not in the mean


def test_given_weights_are_row_0() -> None:
    """What training changed is seen against what the run began with."""
    known = {"status": "counted", "reason": None, "evaluate": {"dice": 0.25}, "evaluated": 5}
    away = {"status": "missing", "reason": "not connected", "evaluate": None, "evaluated": None}
    initial = {"event": "initial", "round": 0, "seconds": 0.1, "sites": {"a": known, "b": away}}
    initial |= {"global": {"dice": 0.25}}
    lines = {site: site_line(status="counted", evaluate={"dice": 0.5}, evaluated=5) for site in ("a", "b")}
    event = {"event": "round", "round": 1, "seconds": 1.0, "sites": lines, "global": {"dice": 0.5}}
    console = Console(record=True, width=200)
    console.print(results_table([initial, event], "dice"))
    first, second = [line.split("│") for line in console.export_text().splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in first[1:-2]] == ["0", "0.250", "missing", "0.250"]
    assert [cell.strip() for cell in second[1:-2]] == ["1", "0.500", "0.500", "0.500"]


def test_who_told_no_metric_is_not_behind_one() -> None:
    """A site that claimed patients without a metric made the test one of many."""
    told = site_line(status="measured", evaluate={"dice": 0.5}, evaluated=2)
    assert measured_patients({"a": told, "b": site_line(status="measured", evaluated=90)}) == 2
