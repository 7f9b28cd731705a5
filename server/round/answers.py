"""What is made of a site that has no reply that could count."""

from dataclasses import dataclass
from typing import Literal

from gliofed.server.report.sentences import NOT_DRAWN
from gliofed.shared.left_out import in_words
from gliofed.shared.messages import CODES, Reply, error_words

AWAY = 5
LOST = frozenset({3, 4, 5, 8})
"""Of Flower's errors, those after which the same request may find an answer: the reply, the site's connection or its
program was lost. 3 is also what Flower says of a reply whose parts were not all there 180 s after the last of them."""


@dataclass(frozen=True)
class Absent:
    """Why a site has no reply that could count."""

    status: Literal["declined", "failed", "missing", "late", "not_asked", "not_invited"]
    reason: str


NOT_INVITED = Absent("not_invited", "not in round.expected")
RESTS = Absent("not_invited", NOT_DRAWN)
NOT_CONNECTED = Absent("missing", "not connected")
EXPELLED = Absent("missing", "expelled")
NOT_ADMITTED = Absent("missing", "not admitted")
"""Whom this server has never known: expelled before it began, or a name that there is not."""
NO_REPLY = Absent("failed", error_words(3))
UNSIGNED = Absent("failed", "its reply is not signed with the key that it was admitted with")


def flower_error(code: int) -> Absent:
    """Put Flower's error into words."""
    return Absent("failed", error_words(code))


def refusal(reply: Reply) -> Absent:
    """Put a site's code into words, with what its check left out."""
    reason = CODES[reply.code] + (f" (left out: {in_words(reply.left_out)})" if reply.left_out else "")
    return Absent("declined" if reply.status == "declined" else "failed", reason)
