"""The program of one request: Flower's own `flwr-clientapp`, but for two things.

Its token comes by standard input, for every user of a machine sees the words of a command; and of an exception that
our ClientApp did not catch nothing leaves but that there was one. It imports none of our packages: the approved code's,
which it is to run, have the same names.
"""

import sys
from pathlib import Path

import flwr.supernode.runtime.run_clientapp as program
from flwr.app import Error

REASON = "the site's program failed; its own log says why"


def main() -> None:
    """Answer the request of the token, from the SuperNode at this address, with this certificate and process."""
    address, certificate, parent = sys.argv[1:]
    # Else the reason would be the exception's own words.
    vars(program)["Error"] = lambda code, reason: Error(code, REASON)
    program.run_clientapp(address, sys.stdin.readline().strip(), False, Path(certificate).read_bytes(), int(parent))


if __name__ == "__main__":
    main()
