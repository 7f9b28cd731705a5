"""The figures of a run, by name; each is drawn from a `Record`, and is None where the run has nothing to show in it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.server.report.plots.comparison import gains, matrix
from gliofed.server.report.plots.rounds import epsilon, participation, traffic, weights
from gliofed.server.report.plots.run import by_region, by_site, curves
from gliofed.server.report.plots.style import save_plot
from gliofed.server.report.record import Record
from gliofed.server.report.series import finished

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, Callable[[Record], "Figure | None"]] = {
    "curves": curves,
    "by_site": by_site,
    "by_region": by_region,
    "participation": participation,
    "weights": weights,
    "traffic": traffic,
    "epsilon": epsilon,
    "matrix": matrix,
    "gains": gains,
}
"""What `plots/` has, as NAME.png and NAME.svg."""


def draw_plots(run: Record, folder: Path) -> list[str]:
    """Write every figure that the run has into `folder`, as PNG and SVG; return their names.

    Nothing is written of a run that finished no round.
    """
    if not finished(run.events):
        return []
    figures = {name: drawn for name, draw in FIGURES.items() if (drawn := draw(run)) is not None}
    for name, figure in figures.items():
        save_plot(figure, folder, name)
    return list(figures)
