"""Words that depend on a number."""


def quantity(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun.

    >>> quantity(1, "case"), quantity(0, "case"), quantity(2, "entry", "entries")
    ('1 case', '0 cases', '2 entries')
    """
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"
