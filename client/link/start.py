"""gliofed-client start: looks at everything, then keeps one SuperNode of a hospital running until a signal ends it."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.node import Node
from gliofed.client.link.preflight import environment, preflight, read_own_kit
from gliofed.client.link.site_file import own_folder, work_of
from gliofed.shared.audit import note_or_print
from gliofed.shared.locks import BusyError, is_locked, lock_file
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import Program, asked_to_end
from gliofed.shared.terminal import WRONG_USE, outlive_readers, print_with_time, tell

TRY_AGAIN = 1
STEP = 1.0
"""Seconds between two looks."""
PAUSES = (15, 20, 20, 30, 60)
"""Seconds before each start: the server holds a killed SuperNode's connection for 38 to 60 s, and lets none in."""
WAIT = 0.5
"""Seconds for the lock, which `status` holds for a moment."""


def start(folder: Path) -> int:
    """Look at everything, then keep the SuperNode running until a signal ends it: 0.

    2 where something must be mended here, and 1 where it may be mended elsewhere. Raises ConfigError where the folder
    is no hospital's, or is started already.
    """
    folder = own_folder(folder)
    with _alone(folder):
        program = supernode(folder)
        program.end_older()  # of a start that was killed
        found = preflight(folder)
        for warning in found.warnings:
            print_with_time(f"warning: {warning}")
        for fault in (*found.faults, *found.passing):
            tell("gliofed-client", fault)
        if found.faults or found.passing:
            return WRONG_USE if found.faults else TRY_AGAIN
        note_or_print(work_of(folder), "started")
        outlive_readers()
        return _keep(Node(folder, read_own_kit(folder), program), asked_to_end())


def supernode(folder: Path) -> Program:
    """The SuperNode as a program; its own files are in `flower`."""
    home, temporary = HospitalFolder(folder).flower, HospitalFolder(folder).temporary
    own = {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    own["TMPDIR"] = str(temporary)  # Flower unpacks code there; /tmp may be full, or not to be written
    command = [sys.executable, "-P", "-m", "gliofed.client.link.supernode", str(folder)]
    return Program("supernode", command, home, {**environment(), **own}, PAUSES)


def running(folder: Path) -> int | None:
    """The process that runs `start` for this folder; None where there is none."""
    if not is_locked(HospitalFolder(folder).lock):
        return None
    text = HospitalFolder(folder).lock.read_text().strip()
    return int(text) if text.isdigit() else 0


def _keep(node: Node, stop: threading.Event) -> int:
    print_with_time(f"{node.kit.site} of {node.kit.federation}: connecting to {node.kit.address}; end with Ctrl-C")
    failing: str | None = None
    try:
        while not stop.wait(STEP):
            try:
                messages, failing = node.supervise(), None
            except OSError as error:  # a full disk, say: what runs goes on
                sentence = f"{error.filename}: {error.strerror}; make room, or fix it"
                messages, failing = [sentence] * (sentence != failing), sentence
            for sentence in messages:
                print_with_time(sentence)
    finally:
        node.program.end()
        note_or_print(work_of(node.folder), "ended")
    print_with_time("ended")
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: two SuperNodes with one key would push each other out. A killed process gives it back."""
    try:
        held = lock_file(HospitalFolder(folder).lock, "", wait=WAIT)
    except BusyError:
        pid = HospitalFolder(folder).lock.read_text().strip()
        raise ConfigError(f"{folder}: started already, by process {pid}; end that one first") from None
    with held as file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
