"""Who holds what, as a picture."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gliofed.simulation.sites_picture import draw_sites

HELD = {"site-2": {"LGG": 2, "not known": 1}, "site-1": {"HGG": 5, "LGG": 1}, "site-3": {"HGG": 4}}


def test_a_bar_a_site_by_kind_and_the_total_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **how: (figures.append(self), save(self, *args, **how)))
    draw_sites(HELD, tmp_path / "sites.png", "who holds what")
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["site-1", "site-2", "site-3"]
    assert axes.yaxis_inverted()  # the first on top
    bars = {bars.get_label(): [(bar.get_x(), bar.get_width()) for bar in bars] for bars in axes.containers}
    assert bars == {
        "HGG": [(0, 5), (0, 0), (0, 4)],
        "LGG": [(5, 1), (0, 2), (4, 0)],
        "not known": [(6, 0), (2, 1), (4, 0)],
    }
    assert list(bars) == ["HGG", "LGG", "not known"]
    assert [text.get_text() for text in axes.texts] == ["6", "3", "4"]


def test_the_same_numbers_are_the_same_picture(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        draw_sites(HELD, tmp_path / name, "who holds what")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
