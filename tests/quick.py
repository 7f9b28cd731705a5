"""What makes a test's process, and those that it starts, spend no time on what no test looks at."""

import os

import pytest


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """A killed process leaves what it wrote with the system, so that waiting for a disk proves nothing; and each run
    draws its figures, most of whose time goes into pixels."""
    import gliofed.server.report.plots.style

    patch.setattr(os, "fsync", lambda descriptor: None)
    patch.setattr(gliofed.server.report.plots.style, "DPI", 40)
