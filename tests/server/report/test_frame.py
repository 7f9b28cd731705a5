"""A history as a data frame: nothing of it is lost or mixed up, and the example in the docs is true."""

import doctest
import json
import sys
from pathlib import Path

import pytest
from run_events import ODD, full_run

import gliofed
from gliofed.shared.parse import ConfigError

DOCS = Path(__file__).parents[3] / "docs" / "simulate.md"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder runs/first, as in the docs, of a run that has everything."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in full_run()))
    return folder


def test_a_row_is_a_site_in_an_event(run: Path) -> None:
    frame = gliofed.read_run(run)
    found = [
        (event, model if model == model else None, round, site)
        for event, model, round, site in frame.iloc[:, :4].values
    ]
    assert found == [
        *(("initial", None, 0, site) for site in ("a", "all")),
        *(("round", None, 1, site) for site in ("a", "b", "c", "all")),
        *(("round_failed", None, 2, site) for site in ("a", "all")),
        *(("round", None, 2, site) for site in ("a", "b", "c", "all")),
        *(("test", "last", 2, site) for site in ("a", "all")),
        *(("test", "best", 1, site) for site in ("a", "all")),
    ]
    [site] = frame[(frame.event == "round") & (frame["round"] == 2) & (frame.site == "a")].to_dict("records")
    expected = {"status": "counted", "patients": 10, "train_loss": 1.0, "evaluated": 4, "loss": 0.25, "dice": 0.75}
    expected |= {"dice_et": 0.375, "share": 1.0, "size": 3.0, "clipped": 0.5, "epsilon": 2.0, "bytes_up": 0}
    assert expected.items() <= site.items()
    together = frame[(frame.event == "round") & (frame.site == "all")]
    assert together.status.isna().all()
    assert [*together.patients] == [20, 10] and [*together.evaluated] == [12, 8] and [*together.dice] == [0.5, 0.625]
    assert frame[frame.event == "round_failed"].bytes_down.tolist() == [5, 5]
    for _, model in frame[frame.event == "test"].groupby("model"):
        assert model.bytes_down.iloc[-1] == model.bytes_down.iloc[:-1].sum() > 0


def test_columns_have_the_same_kind_in_every_run(tmp_path: Path) -> None:
    """A notebook must not break at a run without a metric, or one that has not begun."""
    kinds = []
    for events in (ODD, full_run(), ODD[:1]):
        (tmp_path / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        kinds.append(
            gliofed.read_run(str(tmp_path)).dtypes.drop(["loss", "dice", "dice_et"], errors="ignore").to_dict()
        )
    assert kinds[0] == kinds[1] == kinds[2]


def test_the_example_in_the_docs_is_true(run: Path) -> None:
    found = doctest.testfile(str(DOCS), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted >= 4 and not found.failed


def test_what_is_missing_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no history.jsonl there, so no run; give a run's folder"):
        gliofed.read_run(run / "nothing")
    monkeypatch.setitem(sys.modules, "pandas", None)  # as where the extra is not installed
    with pytest.raises(ConfigError, match=r"pandas is not installed; pip install 'gliofed\[frame\]'"):
        gliofed.read_run(run)
