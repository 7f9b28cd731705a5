"""The figures that become pictures, to look up what they show."""

from typing import Any

import pytest


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """In the order in which they are saved: each as PNG, then as SVG."""
    from matplotlib.figure import Figure

    kept: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **how: (kept.append(self), save(self, *args, **how)))
    return kept
