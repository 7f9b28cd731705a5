"""What a figure shows, for tests."""

from typing import Any


def drawn(line: Any) -> tuple[str, dict[int, float]]:
    """A line's style and its points, without the gaps."""
    return line.get_linestyle(), {x: y for x, y in zip(*line.get_data(), strict=True) if y == y}
