"""Curves: the series that the events say, and pictures of every odd run."""

from math import nan  # one object, so that dictionaries that hold it can be equal
from pathlib import Path
from typing import Any

import pytest

from gliofed.server.round.history import site_line
from gliofed.simulation.curves import draw_run, draw_runs, short_labels, site_losses, training_loss, validation

PNG = b"\x89PNG\r\n\x1a\n"
Event = dict[str, Any]


def counted(loss: float | None, patients: int = 1) -> Event:
    return site_line(status="counted", patients=patients, train={"loss": loss})


def event(number: int, sites: Event, total: Event | None = None, kind: str = "round") -> Event:
    return {"event": kind, "round": number, "seconds": 1.0, "sites": sites, "global": total}


def run(rounds: int, sites: int = 2) -> list[Event]:
    """A run where everything goes well, with an interval about its metric."""
    lines = {f"site-{n}": counted(1.0 / n) for n in range(1, sites + 1)}
    total = {"loss": 0.5, "dice": 0.6, "dice_low": 0.4, "dice_high": 0.7}
    return [{"event": "start"}, *(event(n, lines, total) for n in range(1, rounds + 1)), {"event": "end"}]


REFUSED = site_line(status="refused", patients=9, train={"loss": 7.0})
DROPPED = site_line(status="dropped")
ODD = [
    {"event": "start"},
    event(1, {"a": counted(1.0, 1), "b": counted(3.0, 3)}),
    event(2, {"a": counted(2.0, 5), "b": REFUSED}, {"dice": 0.25, "loss": None}),
    event(3, {"a": counted(None, 5), "b": DROPPED}, {"dice": None, "loss": 0.5}),
    event(4, {"a": counted(4.0, 0), "b": counted(2.0, 1)}, {}),
    event(5, {"a": site_line(status="counted", patients=2), "b": counted(6.0)}, {"dice": 0.5}),
    event(6, {"a": counted(9.0)}, kind="round_failed"),
    {"event": "resume"},
]


def test_training_loss_is_the_mean_that_the_updates_have() -> None:
    """By patients, of counted sites; a site without patients weighs one, as in the round."""
    assert training_loss(ODD) == {1: 2.5, 2: 2.0, 3: nan, 4: 3.0, 5: 6.0}


def test_site_losses_have_a_gap_where_the_site_did_not_count() -> None:
    assert site_losses(ODD) == {
        "a": {1: 1.0, 2: 2.0, 3: nan, 4: 4.0, 5: nan},
        "b": {1: 3.0, 2: nan, 3: nan, 4: 2.0, 5: 6.0},
    }


def test_rounds_without_evaluation_are_not_gaps() -> None:
    """With evaluate_every=5 the line goes on from one evaluation to the next; a NaN breaks it."""
    assert validation(ODD, "dice") == {2: 0.25, 3: nan, 5: 0.5}
    assert validation(ODD, "loss") == {2: nan, 3: 0.5, 5: nan}


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["0-experiment=cnn1,seed=1", "1-experiment=cnn2,seed=1"], ["experiment=cnn1", "experiment=cnn2"]),
        (["0-a=1,b=1", "1-a=1,b=2", "2-a=2,b=2"], ["a=1, b=1", "a=1, b=2", "a=2, b=2"]),
        (["0-channels=8,16,seed=1", "1-channels=4,16,seed=1"], ["channels=8,16", "channels=4,16"]),  # 16 is no word
        (["0-a=1", "1-a=1"], ["0-a=1", "1-a=1"]),  # the same run twice: only the number tells them apart
        (["0-seed=1", "1-seed=1,a=1"], ["0-seed=1", "1-seed=1,a=1"]),
        (["0-a=1"], ["0-a=1"]),
        ([], []),
    ],
)
def test_labels_keep_what_differs(names: list[str], short: list[str]) -> None:
    assert short_labels(names) == short


def test_a_run_is_a_picture_and_the_same_one_again(tmp_path: Path) -> None:
    """A run that is drawn anew, after a resume say, must not change where its events did not."""
    for name in ("one.png", "two.png"):
        draw_run(run(3), tmp_path / name, "a run", "dice")
    picture = (tmp_path / "one.png").read_bytes()
    assert picture.startswith(PNG)
    assert picture == (tmp_path / "two.png").read_bytes()
    draw_run(run(3), tmp_path / "noted.png", "a run", "dice", note="synthetic")
    assert (tmp_path / "noted.png").read_bytes() != picture


@pytest.mark.parametrize(
    ("events", "title"),
    [
        (ODD, "every oddity"),
        (run(1), ""),
        (run(2, sites=12), "many sites"),
        ([event(1, {})], "no sites"),
        ([event(1, {"a": DROPPED}), event(2, {"a": counted(None)}, {"dice": None})], "only nulls"),
        (run(2), "a long title that is no $mathematics^, " * 6),
    ],
)
def test_odd_runs_are_drawn(tmp_path: Path, events: list[Event], title: str) -> None:
    draw_run(events, tmp_path / "run.png", title, "dice", note="synthetic")
    assert (tmp_path / "run.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("events", [[], [{"event": "start"}], ODD[-2:]])
def test_nothing_is_drawn_before_a_round_is_finished(tmp_path: Path, events: list[Event]) -> None:
    draw_run(events, tmp_path / "run.png", "empty", "dice")
    draw_runs({"0-a=1": events, "1-a=2": events}, tmp_path, "dice")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [1, pytest.param(11, marks=pytest.mark.slow)])
def test_a_sweep_is_two_pictures(tmp_path: Path, number: int) -> None:
    """With one run, and with more than the legend has room for inside; one has no round and is left out."""
    runs = {f"{n}-seed={n}": run(n + 1) for n in range(number - 1)} | {"98-seed=98": ODD, "99-seed=99": ODD[:1]}
    draw_runs(runs, tmp_path / "sweep", "dice", note="synthetic")
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["dice.png", "losses.png"]
    assert all(path.read_bytes().startswith(PNG) for path in (tmp_path / "sweep").iterdir())
    draw_runs(
        {name: events for name, events in runs.items() if events != ODD[:1]}, tmp_path / "known", "dice", "synthetic"
    )
    for name in ("dice.png", "losses.png"):
        assert (tmp_path / "known" / name).read_bytes() == (tmp_path / "sweep" / name).read_bytes()


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that become pictures, to look up what they show."""
    from matplotlib.figure import Figure

    kept: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **how: (kept.append(self), save(self, *args, **how)))
    return kept


def drawn(line: Any) -> tuple[str, dict[int, float]]:
    return line.get_linestyle(), {x: y for x, y in zip(*line.get_data(), strict=True) if y == y}


def test_a_run_shows_what_its_events_say(tmp_path: Path, figures: list[Any]) -> None:
    """Training, validation and the metric must not be mixed up."""
    draw_run(ODD, tmp_path / "run.png", "a run", "dice", note="synthetic")
    left, right = figures[0].axes
    assert [text.get_text() for text in figures[0].texts] == ["a run", "synthetic"]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("round", "loss", "Dice")
    assert [drawn(line) for line in left.lines] == [
        ("-", {1: 1.0, 2: 2.0, 4: 4.0}),
        ("-", {1: 3.0, 4: 2.0, 5: 6.0}),
        ("-", {1: 2.5, 2: 2.0, 4: 3.0, 5: 6.0}),
        ("--", {3: 0.5}),
    ]
    assert [drawn(line) for line in right.lines] == [("-", {2: 0.25, 5: 0.5})]


def test_a_sweep_shows_what_its_events_say(tmp_path: Path, figures: list[Any]) -> None:
    draw_runs({"0-seed=0,a=1": ODD, "1-seed=1,a=1": run(1)}, tmp_path, "dice")
    losses, scores = (figure.axes[0] for figure in figures)
    assert [drawn(line) for line in losses.lines] == [
        ("-", {1: 2.5, 2: 2.0, 4: 3.0, 5: 6.0}),
        ("--", {3: 0.5}),
        ("-", {1: 0.75}),
        ("--", {1: 0.5}),
    ]
    assert [drawn(line) for line in scores.lines] == [("-", {2: 0.25, 5: 0.5}), ("-", {1: 0.6})]
    names = [text.get_text() for text in losses.get_legend().get_texts()]
    assert names == ["seed=0", "seed=1", "training", "validation"]


def test_the_interval_is_drawn_where_the_events_have_one(tmp_path: Path, figures: list[Any]) -> None:
    for events in (run(3), run(1), ODD):  # a band, a bar, nothing
        draw_run(events, tmp_path / "run.png", "a run", "dice")
    band, bar, none = (figure.axes[1].collections for figure in figures)
    for interval in (*band, *bar):
        heights = interval.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (0.4, 0.7)
    assert (len(band), len(bar), len(none)) == (1, 1, 0)
