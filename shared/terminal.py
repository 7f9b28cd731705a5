"""What a person reads on a terminal."""

import argparse
import sys
from typing import NoReturn

WRONG_USE = 2


def one_sentence() -> None:
    """Let every parser of this program say in one sentence what is wrong; Hydra makes its own, out of our reach."""
    argparse.ArgumentParser.error = _wrong  # type: ignore[method-assign]


def _wrong(self: argparse.ArgumentParser, message: str) -> NoReturn:
    print(f"{self.prog}: {plain(message)}; see {self.prog} --help", file=sys.stderr)
    sys.exit(WRONG_USE)


def plain(text: str) -> str:
    r"""Write what is not printable as its code: a name or a line of code may hold a terminal's commands.

    >>> plain("a\x1b[2Kb")
    'a\\x1b[2Kb'
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
