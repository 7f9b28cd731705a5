"""Several runs in one figure: a line a run, or a mean over the seeds."""

from pathlib import Path
from typing import Any

import pytest
from drawn import drawn
from run_events import ODD, counted, event, full_run, run

from gliofed.server.report.plots.sweep import by_seed, draw_runs, short_labels

FILES = ["dice.png", "dice.svg", "losses.png", "losses.svg"]


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


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["0-seed=0", "1-seed=1"], {"mean of 2 seeds": 2}),
        (
            ["0-a=1,seed=0", "1-a=1,seed=1", "2-a=2,seed=0", "3-a=2,seed=1"],
            {"a=1, mean of 2 seeds": 2, "a=2, mean of 2 seeds": 2},
        ),
        (["0-a=1,b=8,16,seed=0", "1-a=2,b=8,16,seed=0"], {"a=1": 1, "a=2": 1}),
        (["0-seed=0", "1-seed=0"], {"0-seed=0": 1, "1-seed=0": 1}),  # one run made twice is no sample of seeds
        (["first", "second"], {"first": 1, "second": 1}),
    ],
)
def test_runs_that_differ_in_the_seed_are_one_group(names: list[str], groups: dict[str, int]) -> None:
    found = by_seed({name: run(1) for name in names})
    assert {group.label: len(group.runs) for group in found} == groups


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 11])
def test_a_sweep_is_two_figures(tmp_path: Path, number: int) -> None:
    """With one run, and with more than the legend has room for inside; one has no round and is left out."""
    runs = {f"{n}-a={n}": run(n + 1) for n in range(number - 1)} | {"98-a=98": ODD, "99-a=99": ODD[:1]}
    assert draw_runs(runs, tmp_path / "sweep", "dice", note="synthetic") == ["losses", "dice"]
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == FILES
    known = {name: events for name, events in runs.items() if events != ODD[:1]}
    draw_runs(known, tmp_path / "known", "dice", "synthetic")
    for name in FILES:
        assert (tmp_path / "known" / name).read_bytes() == (tmp_path / "sweep" / name).read_bytes()


def test_nothing_is_drawn_before_a_round_is_finished(tmp_path: Path) -> None:
    assert draw_runs({"0-a=1": [], "1-a=2": ODD[:1]}, tmp_path, "dice") == []
    assert not list(tmp_path.iterdir())


def test_a_sweep_shows_what_its_events_say(tmp_path: Path, figures: list[Any]) -> None:
    draw_runs({"0-seed=0,a=1": ODD, "1-seed=0,a=2": run(1)}, tmp_path, "dice")
    losses, scores = (figure.axes[0] for figure in figures[::2])
    assert [drawn(line) for line in losses.lines] == [
        ("-", {1: 2.5, 2: 2.0, 4: 3.0, 5: 6.0}),
        ("--", {3: 0.5}),
        ("-", {1: 0.75}),
        ("--", {1: 0.5}),
    ]
    assert [drawn(line) for line in scores.lines] == [("-", {2: 0.25, 5: 0.5}), ("-", {1: 0.6})]
    names = [text.get_text() for text in losses.get_legend().get_texts()]
    assert names == ["a=1", "a=2", "training", "validation"]


def test_seeds_are_thin_lines_and_their_mean_a_thick_one(tmp_path: Path, figures: list[Any]) -> None:
    """The mean is over the rounds that every seed has: of fewer it would be another mean."""
    short = [event(1, {"a": counted(1.0)}, {"dice": 0.5})]
    long = [event(n, {"a": counted(1.0)}, {"dice": 0.25 * n}) for n in (1, 2)]
    draw_runs({"0-seed=0": short, "1-seed=1": long}, tmp_path, "dice")
    lines = figures[-1].axes[0].lines
    assert [drawn(line)[1] for line in lines] == [{1: 0.5}, {1: 0.25, 2: 0.5}, {1: 0.375}]
    assert lines[2].get_linewidth() > lines[0].get_linewidth()
    assert lines[0].get_color() == lines[2].get_color()


def test_given_weights_are_inside_the_figure(tmp_path: Path, figures: list[Any]) -> None:
    """Their round 0 was cut off, and the line began at nothing."""
    draw_runs({"0-a=1": full_run()}, tmp_path, "dice")
    assert all(figure.axes[0].get_xlim()[0] < 0 for figure in figures)
