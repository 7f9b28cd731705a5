"""One SuperNode of a hospital: started again where it ends or hangs; says what it does, and why it does not."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.preflight import lacking_room
from gliofed.client.link.reach import reach
from gliofed.client.link.receipts import refusal
from gliofed.client.link.site_file import read_site
from gliofed.shared.audit import events_of
from gliofed.shared.files import write_json
from gliofed.shared.kit import Kit
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import Program, start_of
from gliofed.shared.site_config import SiteConfig

QUIET = 120.0
"""Seconds without an answer of the server after which a SuperNode that waits is started again."""
MORE = 300.0
"""Seconds beyond the longest request after which one that works is."""
HELD = 70.0
"""Seconds since the last contact in which a refusal may be for the earlier connection."""
UNKNOWN_KEY = (
    "the aggregator does not know this hospital's key: it is not admitted yet, or was expelled; "
    "still trying, since it may be admitted at any time"
)
UNSIGNED = (
    "the aggregator does not accept this hospital's signature: it was expelled, or this machine's clock is wrong; "
    "still trying"
)
STILL_HELD = (
    "the aggregator still holds this hospital's earlier connection, which it drops within a minute; "
    "or this hospital was expelled"
)


@dataclass
class Node:
    """The SuperNode of one hospital, and what was said of it last."""

    folder: Path
    kit: Kit
    program: Program
    site: SiteConfig | None = None
    """As its settings were when it was asked last."""
    longest: float = 0.0
    """Seconds that the request that is worked on may take."""
    _seen: dict[str, tuple[object, float]] = field(default_factory=lambda: {"room": (None, 0.0)})
    """Of what it tells and of what was reported, the last value, and when that was seen first: nothing is reported
    twice in a row. No clock is compared: it may be set meanwhile."""
    _contact: float | None = None
    _begun: float = field(default_factory=lambda: monotonic())

    def __post_init__(self) -> None:
        # An earlier `start` may have been killed, and the server still holds its connection: only a clock knows since.
        with suppress(KeyError, TypeError, ValueError):
            contact = datetime.fromisoformat(read_state(self.folder)["contact"])
            self._contact = monotonic() - max(0.0, (datetime.now(UTC) - contact).total_seconds())

    def supervise(self) -> list[str]:
        """Start it, or start it again, where that is due; return what there is to report."""
        # Once for as long as a disk is nearly full: requests would fail one after the other.
        full = lacking_room(self.folder, self.site) if self.site else None
        messages = self._once("room", full, full or f"{self.folder}: there is room again")
        before = self.program.process
        ended = self.program.supervise()
        messages += ended
        state = read_state(self.folder)
        if (process := self.program.process) is not before:
            self._begun = monotonic()
        if process is None:
            known = before is not None and state.get("pid") == before.pid
            return messages + (self._explain(state.get("problem")) if known else self._end_of_log() if ended else [])
        if state.get("pid") != process.pid or not is_of_now(state):  # it is loading; the state is of an earlier one
            return messages + self._restart_if(monotonic() - self._begun > QUIET, "it did not start")
        return messages + self._look(state)

    def _look(self, state: dict[str, Any]) -> list[str]:
        """Report what is new in what a SuperNode that runs tells of itself."""
        if self._is_new("contact", state["contact"]) and state["contact"]:
            self._contact = monotonic()
        messages = self._once("doing", activity(state), activity(state))
        if sha256 := state["refused"]:
            sentence = f"code {sha256} refused: not approved here; ask for it and approve it"
            messages += self._once("refused", sha256, sentence)
        if self._is_new("since", state["since"]):  # it does something else; the limit may have been changed
            messages += self._last_answer()
        if state["state"] == "working":
            late = self._for("since") > self.longest + MORE
            return messages + self._restart_if(late, "its request ran longer than every limit allows")
        if state["problem"]:
            messages += self._explain(state["problem"])
        elif state["contact"]:
            self._seen.pop("problem", None)
        self._is_new("pulled", state["pulled"])
        quiet = max(self._for("contact"), self._for("pulled")) > QUIET
        return messages + self._restart_if(quiet, f"no answer from the aggregator for {QUIET:g} s")

    def _last_answer(self) -> list[str]:
        """Say why the site did not do what it was asked last; read its settings anew, for they may be changed."""
        known = "receipt" in self._seen  # else the last one is of before this start
        try:
            self.site = site = read_site(self.folder)
            self.longest = 60 * site.policy.max_minutes
            events = events_of(site.folder.root)
            receipt = next((event for event in reversed(events) if event["event"] == "receipt"), None)
        except (ConfigError, OSError) as error:  # so it is answered with a code alone
            return self._once("settings", str(error), str(error))
        new = self._is_new("receipt", receipt) and known
        sentence = refusal(site, receipt) if receipt and new else None
        return [sentence] if sentence else []

    def _restart_if(self, due: bool, why: str) -> list[str]:
        if not due:
            return []
        self.program.end()
        return [f"{why}; the SuperNode is started again"]

    def _explain(self, problem: str | None) -> list[str]:
        """Say once, as a sentence, why the server cannot be worked with, and note it for `status`."""
        recent = self._contact is not None and monotonic() - self._contact < HELD
        if not problem or not self._is_new("problem", (problem, recent)):
            return []
        if "code 2004" in problem:
            sentence = STILL_HELD if recent else UNKNOWN_KEY
        elif "HTTP 401" in problem:
            sentence = UNSIGNED
        else:
            there = reach(self.kit.address, HospitalFolder(self.folder).authority)
            found = [*there.faults, *there.passing, *there.warnings]
            sentence = "; ".join(found) or f"the aggregator's server failed: {problem}"
        return [self._noted(sentence)]

    def _end_of_log(self) -> list[str]:
        """The end of the log of one that did not come so far as to tell anything."""
        with self.program.log.open("rb") as log:
            log.seek(max(0, self.program.log.stat().st_size - 2000))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return [self._noted(f"it said: {lines[-1][:300]}")] if lines else []

    def _noted(self, sentence: str) -> str:
        time = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError):  # a full disk: it is reported at least
            write_json(HospitalFolder(self.folder).problem, {"time": time, "sentence": sentence})
        return sentence

    def _once(self, subject: str, what: object, sentence: str) -> list[str]:
        return [sentence] if self._is_new(subject, what) else []

    def _is_new(self, key: str, value: object) -> bool:
        if key in self._seen and self._seen[key][0] == value:
            return False
        self._seen[key] = value, monotonic()
        return True

    def _for(self, key: str) -> float:
        """Seconds since it began to tell this, or since this start."""
        return monotonic() - max(self._seen[key][1], self._begun)


def read_state(folder: Path) -> dict[str, Any]:
    """What the SuperNode last noted of itself; empty before it has."""
    try:
        return dict(json.loads(HospitalFolder(folder).state.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def is_of_now(state: dict[str, Any]) -> bool:
    """Whether the process that noted this runs."""
    pid, started = state.get("pid"), state.get("started")
    return isinstance(pid, int) and started is not None and started == start_of(pid)


def activity(state: dict[str, Any]) -> str:
    """What a SuperNode does, in words."""
    if state["state"] != "working":
        return {"connecting": "connecting", "idle": "connected, waiting for requests"}.get(state["state"], "")
    kind = {"query": "preparing", "train": "training", "evaluate": "evaluating"}.get(str(state["kind"]), "working on")
    return f"{kind} round {state['round']}"
