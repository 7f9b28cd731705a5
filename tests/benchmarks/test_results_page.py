"""Who trains one table anew does not lose the others."""

from pathlib import Path

import pytest

from tests.benchmarks import results_runs
from tests.benchmarks.results import chosen
from tests.benchmarks.results_page import kept, kept_lead
from tests.benchmarks.results_runs import overrides
from tests.benchmarks.results_tables import ONLY_FULL, TABLES

PAGE = """# Results

Words.

## First

Rows.

- said

## Second

More rows.

![Dice by epsilon](a.png)
"""


def test_a_section_whose_runs_are_gone_stays_as_it_is() -> None:
    assert kept(PAGE, "First") == "## First\n\nRows.\n\n- said\n"
    assert kept(PAGE, "Second") == "## Second\n\nMore rows.\n\n![Dice by epsilon](a.png)\n"


def test_what_the_page_begins_with_stays() -> None:
    assert kept_lead("# Results\n\nTogether.\n\n![A](a.png)\n\n`make results` trains") == "Together.\n\n![A](a.png)\n"
    assert kept_lead("# Results\n\n`make results` trains") == kept_lead("") == ""


def test_what_the_page_does_not_have_is_not_kept() -> None:
    assert kept(PAGE, "Third") == kept("## First\n\nNot trained yet where this page was written.\n", "First") == ""


def test_a_row_of_as_many_seconds_keeps_its_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured anew, its runs would pass for those of other settings. No time is measured here: a test has none."""
    monkeypatch.setattr(results_runs, "ROOT", tmp_path)
    table, row = TABLES["segmentation"], "unet for as many seconds"
    for ratio in (1.26, 2.0):
        monkeypatch.setattr(results_runs, "time_ratio", lambda *_, ratio=ratio: ratio)
        assert "rounds=13" in overrides(table, row, seed=0)
    assert not any(word.startswith("rounds=") for word in overrides(table, "unet", seed=0))


def test_rows_of_as_many_seconds_are_there() -> None:
    for table in TABLES.values():
        assert {*table.as_long, *table.as_long.values()} <= table.rows.keys()


def test_rows_that_take_long_are_trained_where_they_are_asked_for() -> None:
    for name, rows in ONLY_FULL.items():
        assert {*rows} <= TABLES[name].rows.keys()
        assert {row for _, row, _ in chosen([name], full=False)} == TABLES[name].rows.keys()
    usual, full = chosen(None, full=False), chosen(None, full=True)
    left_out = sum(map(len, ONLY_FULL.values()))
    assert len(usual) / 3 + left_out == len(full) / 5 == sum(len(table.rows) for table in TABLES.values())
