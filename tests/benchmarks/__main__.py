"""make bench: every benchmark in one run, as a table, and as JSON with the machine in it."""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from gliofed.shared.versions import versions
from tests.benchmarks import (
    cache,
    cohort,
    drawing,
    gpu,
    hostile,
    memory,
    models,
    overhead,
    phantoms,
    privacy,
    sites,
    startup,
)


def machine() -> dict[str, object]:
    """What the figures hold for."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cpu = model[0].split(":", 1)[1].strip() if model else platform.machine()
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "gpu": gpu, "versions": versions()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    known = ("phantoms", "cache", "cohort", "drawing", "models", "privacy", "overhead", "startup", "hostile", "sites")
    apart = ("memory", "gpu")  # each writes a page
    parser.add_argument("what", nargs="*", help=f"{', '.join(known + apart)} (default: all but {' and '.join(apart)})")
    parser.add_argument(
        "--runs", type=models.positive, default=5, help="of each whole process, for the overhead (default: 5)"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    models.add_arguments(parser)
    gpu.add_arguments(parser)
    arguments = parser.parse_args()
    what = arguments.what or known
    if odd := [word for word in what if word not in known + apart]:
        parser.error(f"{odd[0]}: unknown; known are {', '.join(known + apart)}")
    if arguments.json and not arguments.json.parent.is_dir():  # known before hours of measuring
        parser.error(f"--json {arguments.json}: there is no folder {arguments.json.parent}; make it, or give another")
    figures: dict[str, object] = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    if "phantoms" in what:
        figures["phantom_cpu_seconds"] = written = phantoms.measure()
        print("A phantom of four modalities and its mask, written as NIfTI, in CPU-seconds (asked at 1 mm: at most 8)")
        for size, seconds in written.items():
            print(f"  {size:30} {seconds:8.2f}")
    if "cohort" in what:
        figures["cohort_seconds"] = dealt = cohort.measure()
        print(f"{cohort.PATIENTS} patients found and dealt to sites, in seconds (asked of fets2022_1: below 10)")
        for name, seconds in dealt.items():
            print(f"  {name:30} {seconds:8.2f}")
    if "cache" in what:
        figures["cache"] = cache.measure()
    if "drawing" in what:
        figures["drawing"] = drawing.measure(arguments)
    if "models" in what:
        figures["models"] = models.measure(arguments)
    if "privacy" in what:
        figures["privacy"] = privacy.measure(arguments)
    if "overhead" in what:
        result = overhead.measure(arguments.runs)
        figures |= {"overhead_seconds": result.seconds, "overhead_ratio": result.ratio}
        print("Whole processes, the minimum of the runs, in seconds")
        for name, seconds in result.minimum.items():
            print(f"  {name:30} {seconds:8.2f}")
        print(f"  {'ratio (asked: at most 1.15)':30} {result.ratio:8.3f}")
    if "startup" in what:
        figures["startup_seconds"] = started = startup.measure()
        print(f"From a round's request to the reply of one step, {startup.PATIENTS} patients, in seconds")
        for name, seconds in started.items():
            print(f"  {name + f' (asked: at least {startup.ASKED:g})' * (name == 'ratio'):30} {seconds:8.2f}")
    if "hostile" in what:
        figures["hostile_milliseconds"] = refused = hostile.measure()
        print("A hospital refuses requests of a hostile server, in milliseconds")
        for name, milliseconds in refused.items():
            print(f"  {name:80} {milliseconds:8.2f}")
    if "sites" in what:
        figures["peak_megabytes"] = peaks = sites.measure()
        print(f"Peak memory of a simulation, in MB (asked of the ratio: at most {sites.ASKED:g})")
        for preset, figures_of in peaks.items():
            for name, value in figures_of.items():
                print(f"  {f'{preset}, {name}':30} {value:8.2f}")
    if "memory" in what:
        figures["step_gigabytes"] = memory.measure()
    if "gpu" in what:
        figures["gpu"] = gpu.measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
