"""An answer to a question that is asked of a run, and words that answers share."""

from dataclasses import dataclass
from typing import Literal

from gliofed.shared.events import Event
from gliofed.shared.wording import quantity

MANY = 30
"""Patients below which a small difference may well be chance, and it is said."""
NAMED = 6
"""Sites that a sentence names, at most."""

Tone = Literal["good", "warn", "bad", "open"]


@dataclass(frozen=True)
class Answer:
    """One question, answered."""

    question: str
    verdict: str
    """A few words."""
    tone: Tone
    sentences: list[str]


def of(patients: int | None, singular: str) -> str:
    """How many are behind a figure.

    >>> of(3, "test patient"), of(None, "patient")
    ('n=3 test patients', 'n not known')
    """
    return "n not known" if patients is None else f"n={quantity(patients, singular)}"


def after_round(event: Event) -> str:
    """When a figure was measured."""
    return "before the first round" if event["event"] == "initial" else f"after round {event['round']}"


def listed(names: list[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefgh"))
    ('a', 'a, b and c', 'a, b, c, d, e, f and 2 more')
    """
    shown, rest = names[:NAMED], len(names) - NAMED
    shown = [*shown, f"{rest} more"] if rest > 0 else shown
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def shortened(sentences: list[str], one: str, many: str) -> list[str]:
    """The first few, and how many more there are."""
    rest = len(sentences) - NAMED
    return [*sentences[:NAMED], *([f"And {quantity(rest, one, many)}; see below."] if rest > 0 else [])]
