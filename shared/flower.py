"""The version of Flower whose private names are used here; CONTRIBUTING.md has the steps to another one."""

from flwr import __version__

TESTED = "1.42.0"


def other_version(holds: str) -> str | None:
    """Say that this Flower is another one, in which what gliofed replaces may be unused; None where it was tested."""
    return None if __version__ == TESTED else f"flwr {__version__}: {holds} with {TESTED}; install that"
