"""The figures of a run: they show what its events say, of every odd run, and the same events give the same bytes."""

from pathlib import Path
from typing import Any

import pytest
from drawn import drawn
from run_events import DROPPED, ODD, Event, counted, event, full_run, run

from gliofed.server.report.plots.plots import FIGURES, draw_plots
from gliofed.server.report.plots.run import MOST_SITES
from gliofed.server.report.record import Record

COMPARISON: Event = {
    "metric": "dice",
    "lower_is_better": False,
    "sites": ["a", "b"],
    "matrix": {
        "federated": {"a": {"patients": 3, "metrics": {"dice": 0.75}}, "b": {"patients": 1, "metrics": {"dice": 0.5}}},
        "local a": {"a": {"patients": 3, "metrics": {"dice": 0.25}}, "b": {"patients": 1, "metrics": {"dice": None}}},
    },
    "overall": {
        "federated": {"patients": 4, "metrics": {"dice": {"value": 0.6875, "low": 0.5, "high": 0.75}}},
        "local a": {"patients": 4, "metrics": {"dice": {"value": 0.25, "low": None, "high": None}}},
    },
    "gains": {
        "a": {"patients": 3, "value": 0.5, "low": 0.25, "high": 0.75},
        "b": {"patients": 1, "value": 0.25, "low": None, "high": None},
    },
    "over_pooled": {"value": 0.9, "low": 0.8, "high": 1.0},
    "worst_site": {"site": "b", "value": 0.5, "patients": 1},
}


def record(events: list[Event], name: str = "a run", budget: float | None = None, **known: Any) -> Record:
    privacy = {"mechanism": "dp_sgd" if budget else "none", "epsilon": budget}
    made_up = {"simulation": {"data": {"source": "mock"}}}
    return Record(name, {"run": {"privacy": privacy}} | made_up, events, chosen="dice", **known)


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels()))


@pytest.mark.slow
def test_a_run_with_everything_has_every_figure_and_the_same_one_again(tmp_path: Path) -> None:
    """A run that is drawn anew, after a resume say, must not change where its events did not."""
    whole = record(full_run(), budget=3.0, comparison=COMPARISON)
    for folder in ("one", "two"):
        assert draw_plots(whole, tmp_path / folder) == list(FIGURES)
    files = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "one").iterdir()} == files
    for name in files:
        picture = (tmp_path / "one" / name).read_bytes()
        assert picture == (tmp_path / "two" / name).read_bytes(), name
        if name.endswith(".png"):
            assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        else:  # text is text, not outlines of letters
            assert b">a run" in picture and b"synthetic data" in picture
    assert ">budget, 3<" in (tmp_path / "one" / "epsilon.svg").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "title", "missing"),
    [
        (ODD, "every oddity", set()),
        (run(1), "a long title that is no $mathematics^, " * 6, set()),
        (run(2, sites=MOST_SITES + 1), "many sites", set()),
        ([event(1, {})], "", {"by_site", "participation", "weights"}),
        ([event(1, {"a": DROPPED}), event(2, {"a": counted(None)}, {"dice": None})], "only nulls", set()),
    ],
)
def test_odd_runs_are_drawn(events: list[Event], title: str, missing: set[str]) -> None:
    """Without a warning, which would fail the test; what there is nothing of is left out."""
    figures = {name: draw(record(events, title)) for name, draw in FIGURES.items()}
    nothing = {name for name, figure in figures.items() if figure is None}
    assert nothing == missing | {"by_region", "epsilon", "matrix", "gains"}
    for name in figures.keys() - nothing:
        figures[name].draw_without_rendering()


@pytest.mark.parametrize("events", [[], [{"event": "start"}], ODD[-2:]])
def test_nothing_is_drawn_before_a_round_is_finished(tmp_path: Path, events: list[Event]) -> None:
    assert draw_plots(record(events), tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_curves_show_what_the_events_say() -> None:
    """Training, validation and the metric must not be mixed up."""
    figure = FIGURES["curves"](record(ODD))
    left, right = figure.axes
    assert [text.get_text() for text in figure.texts] == ["a run", "synthetic data"]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("round", "loss", "Dice")
    assert [drawn(line) for line in left.lines] == [
        ("-", {1: 1.0, 2: 2.0, 4: 4.0}),
        ("-", {1: 3.0, 4: 2.0, 5: 6.0}),
        ("-", {1: 2.5, 2: 2.0, 4: 3.0, 5: 6.0}),
        ("--", {3: 0.5}),
    ]
    assert [drawn(line) for line in right.lines] == [("-", {2: 0.25, 5: 0.5})]


def test_the_scores_of_test_patients_stand_at_their_round() -> None:
    right = FIGURES["curves"](record(full_run())).axes[1]
    points = {line.get_label(): drawn(line)[1] for line in right.lines}
    assert points["test, last model"] == {2: 0.375} and points["test, best model"] == {1: 0.4375}
    assert points["validation"] == {0: 0.125, 1: 0.5, 2: 0.625}


def test_the_interval_is_drawn_where_the_events_have_one() -> None:
    """A band, a bar, nothing."""
    band, bar, none = (FIGURES["curves"](record(events)).axes[1].collections for events in (run(3), run(1), ODD))
    for interval in (*band, *bar):
        heights = interval.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (0.4, 0.7)
    assert (len(band), len(bar), len(none)) == (1, 1, 0)


def test_each_site_has_a_line_and_of_many_the_lowest_have_a_name() -> None:
    scores = {f"s{n}": n / 16 for n in range(1, MOST_SITES + 2)}
    lines = {site: counted(1.0, evaluate={"loss": 0.5, "dice": score}) for site, score in scores.items()}
    for sites, names in (([*scores][1:], [*scores][1:]), ([*scores], ["s1", "s2", "s3", "6 other sites"])):
        figure = FIGURES["by_site"](record([event(1, {site: lines[site] for site in sites}, {"dice": 0.5})]))
        *panels, legend = figure.axes
        assert [text.get_text() for text in legend.get_legend().get_texts()] == [*names, "all sites"]
        dice = next(panel for panel in panels if panel.get_ylabel() == "Dice")
        assert sorted(drawn(line)[1][1] for line in dice.lines) == sorted([*(scores[site] for site in sites), 0.5])


def test_each_region_has_a_line() -> None:
    panel, _ = FIGURES["by_region"](record(full_run())).axes
    assert [drawn(line) for line in panel.lines] == [
        ("-", {1: 0.25, 2: 0.25}),
        ("--", {0: 0.125, 1: 0.5, 2: 0.625}),
    ]


def test_participation_shows_every_round_of_every_site() -> None:
    axes = FIGURES["participation"](record(full_run())).axes[0]
    assert {line.get_label(): [*zip(*line.get_data(), strict=True)] for line in axes.lines} == {
        "counted (3)": [(1, 0), (2, 0), (1, 1)],
        "refused (1)": [(2, 1)],
        "not drawn (2)": [(1, 2), (2, 2)],
    }
    assert texts(FIGURES["participation"](record(full_run()))).split("\n")[:3] == ["2 of 2", "1 of 2", "0 of 2"]


def test_shares_stack_to_one_and_a_bound_is_marked() -> None:
    """A clipped update, and of many sites those that weigh least as one."""
    axes = FIGURES["weights"](record(full_run())).axes[0]
    assert [[bar.get_height() for bar in bars] for bars in axes.containers] == [[0.75, 1.0], [0.25, 0.0]]
    assert [drawn(line)[1] for line in axes.lines] == [{2: 0.5}]
    axes = FIGURES["weights"](record(run(1, sites=40))).axes[0]
    heights = [bars[0].get_height() for bars in axes.containers]
    assert sum(heights) == pytest.approx(1.0) and heights[-1] == pytest.approx(33 / 40)
    assert axes.get_legend_handles_labels()[1][-1] == "33 other sites"


def test_privacy_of_many_sites_is_its_two_ends_and_never_falls() -> None:
    """A site that is away in a round keeps what it has spent."""
    first = {f"s{n}": counted(1.0, epsilon=float(n)) for n in range(1, 10)}
    axes = FIGURES["epsilon"](record([event(1, first), event(2, {"s1": counted(1.0, epsilon=1.5)})], budget=12.0)).axes[
        0
    ]
    assert [drawn(line)[1] for line in axes.lines[:2]] == [{1: 9.0, 2: 9.0}, {1: 1.0, 2: 1.5}]
    assert [*axes.lines[2].get_ydata()] == [12.0, 12.0]


def test_the_matrix_has_its_numbers_and_how_many_patients() -> None:
    figure = FIGURES["matrix"](record(full_run(), comparison=COMPARISON))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.75", "0.50", "0.69", "0.25", "-", "0.25"]
    assert [text.get_text() for text in axes.texts if text.get_fontweight() == "bold"] == ["0.25"]  # a's own, at a
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a\nn=3", "b\nn=1", "all\nn=4"]
    assert "federated / pooled: 0.90 (0.80 to 1.00)" in figure.texts[1].get_text()


def test_a_gain_has_its_interval_where_there_is_one() -> None:
    figure = FIGURES["gains"](record(full_run(), comparison=COMPARISON))
    zero, interval, first, second = figure.axes[0].lines
    assert ([*interval.get_xdata()], [*first.get_xdata()], [*second.get_xdata()]) == ([0.25, 0.75], [0.5], [0.25])
    assert {line.get_color() for line in (interval, first, second)} == {zero.get_color()}  # of too few to say
    gains = {"a": COMPARISON["gains"]["a"] | {"patients": 6}}
    clear = FIGURES["gains"](record(full_run(), comparison=COMPARISON | {"gains": gains}))
    assert clear.axes[0].lines[1].get_color() != zero.get_color()
    assert "b, n=1" in texts(figure) and "right is better" in figure.axes[0].get_xlabel()
    assert "weakest at b: 0.50, n=1" in figure.texts[1].get_text()
