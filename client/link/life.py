"""What a SuperNode does, in state.json: for its supervisor, and for `gliofed-client status`."""

import os
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.supercore.error import FlowerError

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.shared.files import write_json
from gliofed.shared.processes import start_of

EVERY = 10.0
"""Seconds between two writings of state.json while nothing changes but the time of contact."""


class Life:
    """What the SuperNode does, on disk for its supervisor and for `status`. Two threads of Flower tell of it."""

    def __init__(self, folder: Path) -> None:
        """Begin: a new process, which has had no contact yet."""
        self._file, self._lock, self._written = HospitalFolder(folder).state, threading.Lock(), 0.0
        self._says: dict[str, Any] = {"pid": os.getpid(), "started": start_of(os.getpid())}
        self._says |= {"contact": None, "pulled": None, "problem": None, "refused": None}
        self.say("connecting")

    def say(self, state: str, kind: str | None = None, round: str | None = None) -> None:
        """Tell of a state that lasts: connecting, idle, or working on a request of this kind and round."""
        with self._lock:
            about = {"state": state, "kind": kind, "round": round}
            if any(self._says.get(key) != value for key, value in about.items()):
                self._says |= {**about, "since": _now()}
                self._write()

    def reached(self, call: str) -> None:
        """Tell that the server has answered; a pull counts by itself, for heartbeats go on without it."""
        with self._lock:
            self._says["pulled" if call == "PullMessages" else "contact"] = _now()
            mended, self._says["problem"] = self._says["problem"] is not None, None
            if mended or time.monotonic() - self._written > EVERY:
                self._write()

    def failed(self, error: Exception) -> None:
        """Tell why a call had no answer."""
        self._set("problem", _problem(error))

    def refused(self, sha256: str) -> None:
        """Tell of code that came and was not approved."""
        self._set("refused", sha256)

    def _set(self, key: str, value: str) -> None:
        with self._lock:
            if self._says[key] != value:
                self._says[key] = value
                self._write()

    def _write(self) -> None:
        try:
            write_json(self._file, self._says)
            self._written = time.monotonic()
        except OSError as error:  # a full disk must not end a training
            complain(f"{self._file}: {error.strerror}")


def complain(sentence: str) -> None:
    """Say what went wrong in the SuperNode's own log."""
    with suppress(OSError):  # a full disk must not end a training
        print(sentence, file=sys.stderr, flush=True)


def _problem(error: Exception) -> str:
    """A refusal's number of HTTP and Flower's own, as HTTP 403 code 2004, or what the connection failed of."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {error}"
    known = FlowerError.from_json(response.text)
    return f"HTTP {response.status_code}" + (f" code {known.code}" if known else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
