"""What a phantom costs to make and write, in CPU-seconds of all threads."""

import tempfile
import time
from pathlib import Path

from gliofed.simulation.phantom import PhantomConfig, write_phantoms

CASES = 3


def measure() -> dict[str, float]:
    """CPU-seconds a case by voxel size in mm, without the one-time load of the template."""
    seconds = {}
    for resolution in (4.0, 2.0, 1.0):
        with tempfile.TemporaryDirectory() as folder:
            write_phantoms(PhantomConfig(patients=1, resolution=resolution), Path(folder, "first"), 0)
            start = time.process_time()
            write_phantoms(PhantomConfig(patients=CASES, resolution=resolution), Path(folder, "cases"), 1)
            seconds[f"{resolution:g} mm"] = round((time.process_time() - start) / CASES, 2)
    return seconds
