"""The table of a run."""

from rich.console import Console

from server.report.table import WIDEST, results_table
from server.round.history import site_line


def test_many_sites_are_counted_without_those_that_were_not_invited() -> None:
    lines = {f"site-{number}": site_line(status="counted", evaluate={"dice": 0.5}) for number in range(WIDEST)}
    lines["site-x"] = site_line(status="not_invited", reason="not in round.expected")
    event = {"event": "round", "round": 1, "seconds": 1.0, "sites": lines, "global": None}
    console = Console(record=True, width=200)
    console.print(results_table([event], "dice"))
    assert f"{WIDEST}/{WIDEST}" in console.export_text()
