"""What a run's history says of its sites: why they did not count, and which bounds they met."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gliofed.shared.wording import quantity

NOT_DRAWN = "not drawn this round"
"""The reason of a site that round.sample lets rest; it may evaluate all the same."""


def rests(line: Mapping[str, Any]) -> bool:
    """Whether a site was not drawn to train in a round, from its line of the history."""
    return line["status"] == "not_invited" and str(line["reason"]).startswith(NOT_DRAWN)


def reasons_of_run(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each site, status and reason, for all rounds in which it was the same, by the first; last the
    test.
    """
    found: dict[tuple[str, str, str], set[int]] = {}
    for event in events:
        for site, line in event.get("sites", {}).items():
            if line["reason"] not in (None, "", NOT_DRAWN):  # chance is nothing to mend
                found.setdefault((site, line["status"], line["reason"]), set()).add(event["round"])
    lines = [
        f"{in_rounds(rounds)}: {site} {'counted, but' if status == 'counted' else f'{status}:'} {reason}"
        for (site, status, reason), rounds in found.items()
    ]
    return lines + _reasons_of_test(events)


def _reasons_of_test(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each site and reason for which it did not measure a model on its test patients."""
    models = [model for event in events if event["event"] == "test" for model in event["models"].values()]
    found = [(site, line["reason"]) for model in models for site, line in model["sites"].items() if line["reason"]]
    return [f"test: {site} not measured: {reason}" for site, reason in dict.fromkeys(found)]


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


def bounds_met(line: Mapping[str, Any]) -> str | None:
    """Name the bounds that a site met in one round, from its line of the history.

    >>> bounds_met({"claimed": 10**9, "patients": 12, "size": 19.2, "clipped": 0.104, "share": 0.25})
    'claimed 1000000000 patients, counted as 12; update of 19.2 times the usual size, clipped'
    """
    met = []
    if line.get("claimed") is not None:
        met.append(f"claimed {quantity(line['claimed'], 'patient')}, counted as {line['patients']}")
    if line.get("clipped") is not None:
        met.append(f"update of {line['size']:.3g} times the usual size, clipped")
    if buffers := line.get("clipped_buffers"):
        most = min(buffers, key=buffers.__getitem__)
        more = f" and {len(buffers) - 1} more" * (len(buffers) > 1)
        met.append(f"{most}{more} changed further than usual, clipped to {buffers[most]:.3g} of that")
    if line.get("peak") is not None:
        met.append(f"weights moved up to {line['peak']:.3g} times as far as allowed, clamped")
    if line.get("share_before") is not None:
        met.append(f"share lowered from {line['share_before']:.2f} to {line['share']:.2f}")
    return "; ".join(met) or None


def bounds_of_run(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the bounds that each site met over all rounds, a sentence a site, by its last such round."""
    rounds = [event["sites"] for event in events if event["event"] in ("round", "round_failed")]
    sentences = []
    for site in sorted({site for lines in rounds for site in lines}):
        met = [text for lines in rounds if site in lines and (text := bounds_met(lines[site]))]
        if met:
            sentences.append(f"{site}: met a limit in {len(met)} of {quantity(len(rounds), 'round')}, last: {met[-1]}")
    return sentences
