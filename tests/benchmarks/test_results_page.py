"""Who trains one table anew does not lose the others."""

from pathlib import Path

import pytest

from tests.benchmarks import results
from tests.benchmarks.results import OF_BEFORE, OTHER_LOSS, kept, kept_lead, overrides
from tests.benchmarks.results_tables import TABLES

PAGE = """# Results

Words.

## First

Rows.

- said

## Second

More rows.

![Dice and AUC by epsilon](a.png)
"""


def test_a_section_whose_runs_are_gone_stays_and_is_said_to_be_of_validation_patients() -> None:
    assert kept(PAGE, "First") == f"## First\n\n{OF_BEFORE}\n\nRows.\n\n- said\n"
    assert kept(PAGE, "Second").endswith("More rows.\n")
    assert kept(kept(PAGE, "First"), "First") == kept(PAGE, "First")


def test_a_section_that_names_its_test_patients_or_has_no_dice_is_told_apart() -> None:
    page = PAGE.replace("Rows.", "12 test patients, dice").replace("More rows.", "dice")
    assert kept(page, "First") == f"## First\n\n{OTHER_LOSS}\n\n12 test patients, dice\n\n- said\n"
    assert kept(page, "Second") == f"## Second\n\n{OF_BEFORE}\n\n{OTHER_LOSS}\n\ndice\n"
    for title in ("First", "Second"):
        assert kept(kept(page, title), title) == kept(page, title)


def test_what_the_page_begins_with_stays() -> None:
    assert kept_lead("# Results\n\nTogether.\n\n![A](a.png)\n\n`make results` trains") == "Together.\n\n![A](a.png)\n"
    assert kept_lead("# Results\n\n`make results` trains") == kept_lead("") == ""


def test_what_the_page_does_not_have_is_not_kept() -> None:
    assert kept(PAGE, "Third") == kept("## First\n\nNot trained yet where this page was written.\n", "First") == ""


def test_a_row_of_as_many_seconds_keeps_its_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured anew, its runs would pass for those of other settings. No time is measured here: a test has none."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    table, row = TABLES["segmentation"], "unet for as many seconds"
    for ratio in (1.26, 2.0):
        monkeypatch.setattr(results, "time_ratio", lambda *_, ratio=ratio: ratio)
        assert "rounds=13" in overrides(table, row, seed=0)
    assert not any(word.startswith("rounds=") for word in overrides(table, "unet", seed=0))


def test_rows_of_as_many_seconds_are_there() -> None:
    for table in TABLES.values():
        assert {*table.as_long, *table.as_long.values()} <= table.rows.keys()
