"""A request that takes too long is ended; only where each message has a process of its own, as at a hospital."""

import signal
import threading
from collections.abc import Callable

from gliofed.client.round.policy import DeclinedError
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply
from gliofed.shared.site_config import PolicyConfig

GRACE = 30.0
"""Seconds from the limit to the end of the process, if it cannot answer: the answer of one that can is on its way."""


def limit_of(policy: PolicyConfig, run: RunConfig) -> float:
    """Seconds that a request may take: the hospital's limit or the run's, whichever is less."""
    return min(60 * policy.max_minutes, run.round.deadline)


def within(seconds: float, work: Callable[[], Reply]) -> Reply:
    """Do the work in a thread and return its reply; DeclinedError `timeout` where it takes longer. Main thread only.

    The thread cannot be ended: the process must end once the answer has left, which Flower's does. Should it not, since
    C code keeps the interpreter's lock, say, the kernel ends it GRACE seconds after the limit: nothing of Python runs
    for that.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
    outcome: list[Reply | BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # it is the caller's, whatever it is
            outcome.append(error)

    # A daemon, which the end of the process does not wait for.
    thread = threading.Thread(target=run, name="work", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        limits = "policy.max_minutes or the run's round.deadline"
        raise DeclinedError("timeout", f"not done after {seconds:.0f} s: {limits}")
    signal.setitimer(signal.ITIMER_REAL, 0)
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result
