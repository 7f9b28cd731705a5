"""What Flower, files, checks and messages cost: gliofed-simulate against the same steps in a plain loop."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Overhead:
    """Seconds of whole processes, by command."""

    seconds: dict[str, list[float]]

    @property
    def minimum(self) -> dict[str, float]:
        """Noise only ever adds."""
        return {name: min(times) for name, times in self.seconds.items()}

    @property
    def ratio(self) -> float:
        """Ours to the plain loop's."""
        ours, plain = self.minimum.values()
        return round(ours / plain, 3)


def measure(runs: int) -> Overhead:
    """Time both in turn, so that a machine that slows down does so for both."""
    cores = len(os.sched_getaffinity(0))
    simulate = str(Path(sys.executable).with_name("gliofed-simulate"))
    commands = {
        "gliofed-simulate": [simulate, "device=cpu"],
        f"plain loop, {cores} threads": [sys.executable, str(HERE / "plain_loop.py"), str(cores)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                out = [f"out={folder}/run"] if name == "gliofed-simulate" else []
                start = time.perf_counter()
                subprocess.run([*command, *out], check=True, capture_output=True)
                seconds[name].append(round(time.perf_counter() - start, 2))
            print(f"run {run + 1}/{runs}: {name}: {seconds[name][-1]} s", file=sys.stderr, flush=True)
    return Overhead(seconds)
