"""The version of Flower whose private names are used here; CONTRIBUTING.md has the steps to another one."""

from flwr import __version__

TESTED = "1.41.0"


def other_version(holds: str) -> str | None:
    """Say that Flower is another version than the one with which `holds` was tested; None where it is that one.

    What is replaced here might not be what takes a message, or checks the code, in another.
    """
    return None if __version__ == TESTED else f"flwr {__version__}: {holds} with {TESTED}; install that"
