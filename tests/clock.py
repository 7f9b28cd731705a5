"""Time that passes when somebody sleeps, and not while a busy machine does something else."""

from dataclasses import dataclass


@dataclass
class Clock:
    """What has a clock as an argument takes this one in the place of the module `time`."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
