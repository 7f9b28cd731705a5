"""Which bounds a site met: what it claimed, how large its updates were, how much it weighed."""

from collections.abc import Mapping, Sequence
from typing import Any

from gliofed.shared.wording import quantity


def bounds_met(line: Mapping[str, Any]) -> str | None:
    """Say it of one site in one round, from its line of the history.

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
        met.append(f"buffers clipped: {len(buffers)}, the most {most}, to {buffers[most]:.3g} of what came")
    if line.get("peak") is not None:
        met.append(f"weights moved up to {line['peak']:.3g} times as far as allowed, clamped")
    if line.get("share_before") is not None:
        met.append(f"share lowered from {line['share_before']:.2f} to {line['share']:.2f}")
    return "; ".join(met) or None


def bounds_of_run(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say it of each site over all rounds, a sentence a site, by its last such round."""
    rounds = [event["sites"] for event in events if event["event"] in ("round", "round_failed")]
    sentences = []
    for site in sorted({site for lines in rounds for site in lines}):
        met = [text for lines in rounds if site in lines and (text := bounds_met(lines[site]))]
        if met:
            sentences.append(f"{site}: bounded in {len(met)} of {quantity(len(rounds), 'round')}, last: {met[-1]}")
    return sentences
