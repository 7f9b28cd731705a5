"""A patient's name in text: found in each form in which programs write it, and taken out."""

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from unicodedata import normalize
from urllib.parse import quote

from gliofed.shared.terminal import plain

INSTEAD = "(withdrawn)"
LETTER = r"(?:[^\W_]|[\u0300-\u036f\udc80-\udcff])"
"""What goes on with a word: a letter, a digit, an accent by itself, a byte that is not UTF-8."""
ESCAPED = r"(?<=\\[abfnrtv])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4})|(?<=%[0-9A-F]{2})"
"""After what only looks like a letter: the code of a line feed, say."""


def hiding(names: Iterable[str], others: Iterable[str]) -> Callable[[str], str]:
    r"""Make a function that puts INSTEAD for the names of a patient in a text, where they are words.

    They are not in the name of another patient, as `others` has them; and a visit is named after its patient.

    >>> hiding(["P1"], ["P1-2"])("P10 P1_t1.nii P1-2 P1-3 left out:\\nP1")
    'P10 (withdrawn)_t1.nii P1-2 (withdrawn)-3 left out:\\n(withdrawn)'
    """
    own = set(_forms(names))
    longer = {form for form in _forms(others) if any(each in form for each in own)}
    forms = "|".join(map(re.escape, sorted(own | longer, key=len, reverse=True)))
    pattern = re.compile(rf"(?:(?<!{LETTER})|{ESCAPED})(?:{forms})(?!{LETTER})")
    without = partial(pattern.sub, lambda found: INSTEAD if found[0] in own else found[0])

    def hide(text: str) -> str:
        """Line by line, and only where there is a name: a pattern that looks back is slow, and logs are long."""
        lines = text.splitlines(keepends=True)
        return "".join(without(line) if any(each in line for each in own) else line for line in lines)

    return hide


def _forms(names: Iterable[str]) -> Iterable[str]:
    """As they stand in file names, in logs, in JSON and in addresses, with accents in their letters or apart."""
    for name in {spelt for each in names for spelt in (each, normalize("NFC", each), normalize("NFD", each))}:
        yield from (name, plain(name), ascii(name)[1:-1], json.dumps(name)[1:-1])
        yield quote(name, safe="", errors="surrogateescape")
