"""Words that depend on a number."""


def count(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun.

    >>> count(1, "case"), count(0, "case"), count(2, "entry", "entries")
    ('1 case', '0 cases', '2 entries')
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"
