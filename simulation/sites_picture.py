"""A picture of who holds what: the patients of each site, by grade say. Numbers only, no names of patients."""

from collections.abc import Mapping
from pathlib import Path

from gliofed.server.report.plots.style import GREY, frame, new_figure, save_figure

COLOURS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00")
"""Neighbours in a bar differ in lightness too, so that it reads in grey."""
UNKNOWN = "#BBBBBB"
ROW = 0.2
"""Inches a site."""


def draw_sites(sites: Mapping[str, Mapping[str, int]], path: Path, title: str) -> None:
    """Write a PNG with a bar a site, sorted by name from the top; `sites` has patients by site and kind.

    Kinds are stacked in the order of their names, "not known" last and grey; the site's total stands at its bar.
    """
    from matplotlib.ticker import MaxNLocator  # slow to import, as everywhere

    names = sorted(sites)
    kinds = sorted({kind for name in names for kind in sites[name]}, key=lambda kind: (kind == "not known", kind))
    figure = new_figure(title, "", width=8.0, height=1.4 + ROW * max(len(names), 4))
    axes = figure.subplots()
    ends = [0] * len(names)
    for number, kind in enumerate(kinds):
        counts = [sites[name].get(kind, 0) for name in names]
        colour = UNKNOWN if kind == "not known" else COLOURS[number % len(COLOURS)]
        axes.barh(names, counts, left=ends, color=colour, label=kind, height=0.75)
        ends = [end + count for end, count in zip(ends, counts, strict=True)]
    for row, end in enumerate(ends):
        axes.annotate(str(end), (end, row), (3, 0), textcoords="offset points", va="center", fontsize=8, color=GREY)
    axes.set_xlim(0, 1.06 * max(ends))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.tick_params(axis="y", labelsize=8, length=0)
    frame(axes, "patients", "", grid="x")
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)
