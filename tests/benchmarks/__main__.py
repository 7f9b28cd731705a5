"""make bench: every benchmark as a table of ratios measured in one run, and as JSON with the machine in it."""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from shared.versions import versions
from tests.benchmarks import overhead


def machine() -> dict[str, object]:
    """What the figures hold for."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cpu = model[0].split(":", 1)[1].strip() if model else platform.machine()
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "gpu": gpu, "versions": versions()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each command (default: 5)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    figures = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    figures["overhead"] = result = overhead.measure(arguments.runs)
    print("\nWhole processes, minimum of the runs, in seconds")
    for name, best in result["minimum"].items():  # type: ignore[attr-defined]
        print(f"  {name:24} {best:8.2f}")
    print(f"gliofed-simulate / plain loop on all cores: {result['ratio']} (asked: at most {result['asked']})")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
