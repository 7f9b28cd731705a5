"""Cases that a site left out, by code: when there are so many that both ends say so, and in which words."""

from collections.abc import Mapping

MANY = 5
"""Cases from which it is always said."""


def many(left_out: Mapping[str, int], used: int) -> bool:
    """Whether it is five cases or more, or more than a tenth of them and those that are used.

    >>> many({"label_values": 3, "truncated": 2}, used=1000), many({"truncated": 1}, used=9), many({"truncated": 1}, 8)
    (True, False, True)
    """
    count = sum(left_out.values())
    return count >= MANY or 10 * count > count + used


def in_words(left_out: Mapping[str, int]) -> str:
    """The counts, by code.

    >>> in_words({"truncated": 2, "bad_crc": 1})
    '1 bad_crc, 2 truncated'
    """
    return ", ".join(f"{count} {code}" for code, count in sorted(left_out.items()))
