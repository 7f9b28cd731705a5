"""Text from elsewhere on a person's terminal."""


def plain(text: str) -> str:
    r"""Write what is not printable as its code: a name or a line of code may hold a terminal's commands.

    >>> plain("a\x1b[2Kb")
    'a\\x1b[2Kb'
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
