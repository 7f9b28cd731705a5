"""What a run's history says of its sites, in a line for all the rounds in which it was the same."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any


def reasons_of_run(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each site, status and reason, in the order in which they came up."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for event in events:
        for site, line in event.get("sites", {}).items():
            if line["reason"]:
                found.setdefault((site, line["status"], line["reason"]), set()).add(event["round"])
    return [f"{in_rounds(rounds)}: {site} {status}: {reason}" for (site, status, reason), rounds in found.items()]


def in_rounds(rounds: set[int]) -> str:
    """Name rounds, neighbours together.

    >>> in_rounds({2}), in_rounds({1, 2, 3, 7})
    ('round 2', 'rounds 1-3, 7')
    """
    spans = [
        [round for _, round in span] for _, span in groupby(enumerate(sorted(rounds)), lambda each: each[1] - each[0])
    ]
    ranges = [f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans]
    return f"round{'s' * (len(rounds) > 1)} {', '.join(ranges)}"
