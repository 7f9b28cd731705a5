"""Who trains one table anew does not lose the others."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from gliofed.shared.files import write_bytes
from gliofed.simulation.settings import parse_settings
from tests.benchmarks import attacks, honest, results_runs
from tests.benchmarks.results import chosen
from tests.benchmarks.results_page import kept, kept_lead, stays
from tests.benchmarks.results_runs import Run, folder, overrides, trained
from tests.benchmarks.results_tables import ONLY_FULL, TABLES, usual_rows

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


def finished_run(out: Path, words: list[str]) -> None:
    """A run of these settings as it is left; nothing is trained."""
    values = results_runs.composed(words)
    out.mkdir(parents=True)
    about = {"config_hash": parse_settings(values)[0].hash, "simulation": values}
    (out / "run.json").write_text(json.dumps(about))
    sites = {"site-1": {"evaluate": {"dice": 0.8}}}
    test = {"event": "test", "models": {"last": {"global": {"dice": 0.8}, "sites": sites}}}
    events = ({"event": "round", "seconds": 1.0}, test, {"event": "end", "status": "done"})
    (out / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    write_bytes(out / "model" / "model.safetensors", save({"a": np.zeros(3, np.float32)}))


@pytest.fixture
def unet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run of the U-Net of the table segmentation is, at seed 0."""
    monkeypatch.setattr(results_runs, "ROOT", tmp_path)
    out = folder(TABLES["segmentation"], "unet", 0)
    finished_run(out, overrides(TABLES["segmentation"], "unet", 0))
    return out


def test_a_run_counts_for_a_row_with_its_settings(unet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = TABLES["segmentation"]
    assert trained(table) == {"unet": [Run(0, 1.0, 3, {"dice": 0.8, "dice at site-1": 0.8})]}
    other = folder(table, "unet", 1)
    finished_run(other, [*overrides(table, "unet", 1), "train.steps=1"])
    assert [run.seed for run in trained(table)["unet"]] == [0]
    assert capsys.readouterr().err == f"{other}: trained with other settings; left out\n"


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: tear(out / "history.jsonl"),
        lambda out: tear(out / "run.json"),
        lambda out: (out / "run.json").unlink(),
        lambda out: (out / "model" / "model.safetensors").unlink(),
    ],
    ids=["history", "settings", "no settings", "no model"],
)
def test_a_damaged_run_is_none_and_stops_no_other(unet: Path, damage: Callable[[Path], None]) -> None:
    damage(unet)
    assert trained(TABLES["segmentation"]) == {}


def test_a_section_gives_way_to_all_of_its_usual_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A killed `make results` had put one seed of one row in the place of three of each."""
    table = TABLES["absent"]
    page = f"## {table.title}\n\nRows.\n"
    runs = {row: [Run(seed, 1.0, 3, {}) for seed in results_runs.SEEDS] for row in usual_rows("absent")}
    assert stays(page, "absent", runs) == ""
    row, done = runs.popitem()
    assert stays(page, "absent", runs | {row: done[:2]}) == page
    assert f"stays as it is: {row}, seed 2, is not there" in capsys.readouterr().err
    assert stays(page, "absent", {}) == page and not capsys.readouterr().err
    assert stays("", "absent", runs) == "", "a page without the section has what there is"


def test_tables_of_threats_stay_without_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "ROOT", tmp_path)
    monkeypatch.setattr(honest, "ROOT", tmp_path)
    assert attacks.tables() == honest.tables() == {}
    run = next(attacks.all_runs(attacks.EVERY_FOLD))
    for of in ("settings of before", attacks.digest_of(run)):
        with (tmp_path / "runs.jsonl").open("a") as file:
            file.write(json.dumps({"run": asdict(run), "of": of, "dice": 0.5}) + "\n")
    assert [row["of"] for row in attacks.results().values()] == [attacks.digest_of(run)]
    assert attacks.tables() == {}
    page = attacks.PAGE.read_text()
    for place in ("attacks on 4 sites", "attacks on 10 sites", "honest"):
        assert page.count(f"<!-- made by make results: {place} -->") == page.count(f"<!-- end of {place} -->") == 1
