"""Peak memory of a simulation of few and of many sites: it must not grow with them.

usage: python -m tests.benchmarks.sites SITES PRESET   (runs one simulation, prints its peak in MB)
"""

import io
import resource
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

FEW, MANY = 4, 64
PRESETS = ("demo", "base")
"""81 thousand and 5.3 million weights."""
ASKED = 1.1


def measure() -> dict[str, dict[str, float]]:
    """Return MB by sites, and their ratio, by preset; each in a process of its own."""
    return {preset: _of(preset) for preset in PRESETS}


def _of(preset: str) -> dict[str, float]:
    words = [sys.executable, "-m", "tests.benchmarks.sites"]
    few, many = (
        float(subprocess.run([*words, str(sites), preset], check=True, stdout=subprocess.PIPE, text=True).stdout)
        for sites in (FEW, MANY)
    )
    return {f"{FEW} sites": few, f"{MANY} sites": many, "ratio": many / few}


def main() -> None:
    from gliofed.simulation.simulate import simulate

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from small_run import SMALL_DATA, as_given

    sites, preset = sys.argv[1:]
    model = ("model=unet", f"model.preset={preset}", "train.steps=1", "rounds=3", "at_once=2")
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        outcome = simulate(as_given(*model, *SMALL_DATA, f"sites={sites}", f"out={folder}/out"))
    assert outcome.status == "done"
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
