"""What is done to a run across machines: one line a scenario."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deployed_federation import FAKETIME

from faults.stage import Stage

PROGRAMS = ("ClientApp", "SuperNode", "SuperLink", "ServerApp", "nginx")
MOMENTS = ("asking", "training", "transferring")
FULL = 60.0
"""Seconds for which a disk is full, and a clock wrong."""


@dataclass(frozen=True)
class Scenario:
    """Something that happens in the first round."""

    do: Callable[[Stage], None]
    """Submits the run as well."""
    within: float
    """Seconds that it may cost, beside an undisturbed run."""
    settings: tuple[str, ...] = ()
    """Of the run, besides those of all."""


def undisturbed(stage: Stage) -> None:
    stage.submit()


def kill(program: str, moment: str) -> Callable[[Stage], None]:
    """End a program at once, as the kernel does when memory runs out, or a person in a hurry."""

    def do(stage: Stage) -> None:
        stage.submit()
        stage.wait_for(moment)
        os.kill(stage.pid(program), signal.SIGKILL)

    return do


def cut(seconds: float, moment: str) -> Callable[[Stage], None]:
    """Pull the site's cable for a while."""

    def do(stage: Stage) -> None:
        stage.submit()
        stage.wait_for(moment)
        subprocess.run(["ip", "link", "set", "to-site", "down"], check=True)
        time.sleep(seconds)
        subprocess.run(["ip", "link", "set", "to-site", "up"], check=True)

    return do


def hang(stage: Stage) -> None:
    """Stop the process that trains, as a file server that no longer answers does."""
    stage.submit()
    stage.wait_for("training")
    os.kill(stage.pid("ClientApp"), signal.SIGSTOP)


def fill(place: Callable[[Stage], Path], moment: str) -> Callable[[Stage], None]:
    """Leave no free byte on a disk for a while; it is a tmpfs, which can be as large as what is on it."""

    def do(stage: Stage) -> None:
        stage.submit()
        stage.wait_for(moment)
        disk = place(stage)
        there = os.statvfs(disk)
        _resize(disk, (there.f_blocks - there.f_bfree) * there.f_frsize)
        try:
            time.sleep(FULL)
        finally:
            _resize(disk, there.f_blocks * there.f_frsize)

    return do


def spoil(stage: Stage) -> None:
    """Turn the scans that the site prepared into NaN; delete them after the round, as an administrator would."""
    cache = stage.made.hospital(stage.site) / "work" / "cache"
    stage.submit()
    stage.until(lambda: list(cache.glob("*/image.npy")), "a prepared scan", 300.0)
    for path in cache.glob("*/image.npy"):
        array = np.load(path, mmap_mode="r+")
        array[:] = np.nan
        array.flush()
    stage.until(lambda: stage.rounds() or stage.end(), "the end of the first round", 600.0)
    shutil.rmtree(cache)


def wrong_clock(moment: str | None) -> Callable[[Stage], None]:
    """Start the hospital, before the run or again during it, with a clock an hour ahead; put it right later."""

    def do(stage: Stage) -> None:
        if moment:
            stage.submit()
            stage.wait_for(moment)
        stage.made.hospital_end(stage.site)
        stage.made.hospital_start(stage.site, LD_PRELOAD=FAKETIME, FAKETIME="+1h")
        if moment is None:
            stage.submit()
        time.sleep(FULL)
        stage.made.hospital_end(stage.site)
        stage.made.hospital_start(stage.site)

    return do


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


LARGE = ("model=clstm_unet3d", "model.preset=base", "model.layers=2", "data.window=1", "train.steps=1")
"""34 million weights: 134 MB an update, 22 s on the way."""

SCENARIOS: dict[str, Scenario] = {
    "undisturbed": Scenario(undisturbed, 0.0),
    **{
        f"kill -9 of the {program}, {moment}": Scenario(kill(program, moment), 240.0)
        for program in PROGRAMS
        for moment in MOMENTS
    },
    **{
        f"link cut for {seconds} s, {moment}": Scenario(cut(seconds, moment), 240.0)
        for seconds in (10, 90)
        for moment in MOMENTS
    },
    "disk full for 60 s at the server, training": Scenario(fill(lambda stage: stage.made.folder, "training"), 240.0),
    "disk full for 60 s at the server, transferring": Scenario(
        fill(lambda stage: stage.made.folder, "transferring"), 240.0
    ),
    "disk full for 60 s at the site, training": Scenario(
        fill(lambda stage: stage.made.hospital(stage.site), "training"), 240.0
    ),
    "hung training": Scenario(hang, 600.0),
    "NaN in the site's prepared scans": Scenario(spoil, 60.0),
    "clock an hour ahead when the hospital starts": Scenario(wrong_clock(None), 240.0),
    "clock an hour ahead after a restart, training": Scenario(wrong_clock("training"), 240.0),
    "large updates, undisturbed": Scenario(undisturbed, 0.0, LARGE),
    "large updates, link cut for 10 s, transferring": Scenario(cut(10, "transferring"), 240.0, LARGE),
    "large updates, kill -9 of the nginx, transferring": Scenario(kill("nginx", "transferring"), 240.0, LARGE),
}
"""By name; the later ones need libfaketime (Debian) for the clock."""
