"""Sites whose time is over, in one process: without a deadline that a busy machine could miss as well."""

import math

import pytest

from gliofed.simulation.grid import LocalGrid


def time_is_over(patch: pytest.MonkeyPatch, node: int, kind: str) -> None:
    """Give up a node as soon as it works on a message of that kind (query, train or evaluate)."""
    original = LocalGrid._give_up_hung

    def give_up_hung(grid: LocalGrid) -> None:
        job = grid._working.get(node)
        if job is not None and job.message.metadata.message_type == kind:
            job.since = -math.inf
        original(grid)

    patch.setattr(LocalGrid, "_give_up_hung", give_up_hung)
