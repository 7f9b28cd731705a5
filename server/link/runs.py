"""A federation's runs on disk: runs/NAME is a run's folder, with what the operator wants of it beside."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import uuid4

from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.server.round.history import Event, History
from gliofed.shared.audit import audit_file, note_act, read_audit
from gliofed.shared.chain import begun, is_held
from gliofed.shared.config import RunConfig
from gliofed.shared.files import new_folder, write_bytes, write_json
from gliofed.shared.locks import lock_file
from gliofed.shared.parse import ConfigError, Strict, is_site_name, parse
from gliofed.shared.run_folder import RunFolder
from gliofed.shared.terminal import command_line
from gliofed.shared.versions import versions

if TYPE_CHECKING:
    from gliofed.server.round.given import Given

T = TypeVar("T")
FEDERATION = "GLIOFED_FEDERATION"
"""Environment variable with the federation's folder, of a run's server."""
State = Literal["waiting", "running", "stopped", "done", "incomplete", "failed"]


@dataclass(frozen=True, kw_only=True)
class Wanted(Strict):
    """What the operator wants of a run."""

    wanted: Literal["run", "stop"]
    since: str
    """Time, ISO 8601, of the last word to run; runs take their turn in this order."""
    events: int
    """Events of its history then: an end among them is an earlier one."""


@dataclass(frozen=True, kw_only=True)
class Submission(Strict):
    """What became of a run at Flower."""

    since: str
    """Of the word that it answers; another word, another submission."""
    flower: int | None = None
    """Flower's id of the run that goes on; None: there is none now."""
    tries: int = 0
    """Submissions since the last round that was new."""
    rounds: int = 0
    """Finished rounds when it was submitted last."""
    gave_up: str | None = None
    """Why it is not submitted again."""


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """As the operator calls it."""
        return self.folder.name

    @property
    def files(self) -> RunFolder:
        """Where its files are."""
        return RunFolder(self.folder)

    def saved(self) -> dict[str, Any]:
        """What run.json says, or ConfigError."""
        try:
            saved = json.loads(self.files.description.read_text())
            return {**saved, "run": dict(saved["run"]), "run_id": str(saved["run_id"])}
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{self.folder}/run.json: damaged; put it back from a copy") from None

    @property
    def resume_command(self) -> str:
        """What lets it go on."""
        return command_line("gliofed-server", "run", f"federation={self.folder.parents[1]}", f"resume={self.name}")

    def code(self) -> bytes:
        """The bundle that it began with, whatever was provisioned since. Raises ConfigError where it is lost."""
        file, sha256 = self.files.code, self.saved().get("code_sha256")
        if sha256 is None:
            cure = f"end it with that version, or gliofed-server stop {self.name}, and begin a new run"
            raise ConfigError(f"{self.folder}/run.json: of an older version, which kept no code with a run; {cure}")
        try:
            code = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}; restore it from a copy") from None
        if sha256 != hashlib.sha256(code).hexdigest():
            raise ConfigError(f"{file}: not the code that the run began with; restore it from a copy")
        return code

    def check(self) -> None:
        """Raise ConfigError where what its server goes on from is damaged: it would end at once, each time."""
        from gliofed.shared.checkpoint import check_checkpoint  # PyTorch comes with it, and takes seconds to load

        self.code()
        check_checkpoint(self.files.checkpoints)
        if sha256 := self.saved()["run"].get("init"):
            from gliofed.server.round.given import kept_weights

            kept_weights(self.files, sha256)
        if begun(log := audit_file(self.folder)):
            read_audit(log)

    def lives(self) -> bool:
        """Whether its server works on it; one that has just started may still be loading."""
        return is_held(audit_file(self.folder).parent)

    def wanted(self) -> Wanted:
        """What the operator wants, or ConfigError."""
        return _read(Wanted, self.files.wanted)

    def want(self, word: Literal["run", "stop"], now: datetime | None = None) -> None:
        """Note what the operator wants from now on."""
        since = (now or datetime.now(UTC)).isoformat(timespec="microseconds")
        if word == "stop":  # its turn, and what became of it, stay
            since = self.wanted().since
        write_json(self.files.wanted, asdict(Wanted(wanted=word, since=since, events=len(self.events()))))

    def submission(self) -> Submission:
        """What became of it, as far as that answers the operator's last word; a run at Flower is never forgotten."""
        since, file = self.wanted().since, self.files.submission
        last = _read(Submission, file) if file.exists() else Submission(since=since)
        return last if last.since == since else Submission(since=since, flower=last.flower)

    def submitted(self, submission: Submission) -> None:
        """Note what became of it."""
        write_json(self.files.submission, asdict(submission))

    def events(self) -> list[Event]:
        """Its history so far, or ConfigError."""
        file = self.files.history
        if not file.exists():
            return []
        stat = file.stat()
        return list(_events(file, stat.st_mtime_ns, stat.st_size))

    def last_written(self) -> float:
        """When its history changed last, in seconds since 1970; 0: it has none."""
        file = self.files.history
        return file.stat().st_mtime if file.exists() else 0.0

    def ended(self) -> Event | None:
        """The end of its history; None: it goes on, as one does that failed and is wanted again since."""
        events = self.events()
        if not events or events[-1]["event"] != "end":
            return None
        return events[-1] if events[-1]["status"] != "failed" or len(events) > self.wanted().events else None

    def finished_rounds(self) -> int:
        """How many rounds its history has."""
        return sum(event["event"] == "round" for event in self.events())

    def state(self) -> tuple[State, str | None]:
        """Where it stands; and why, where it failed, or its budget was spent before its last round."""
        end, submission = self.ended(), self.submission()
        if end is not None:
            return end["status"], end.get("reason")
        if submission.flower is not None:
            return "running", None
        if self.wanted().wanted == "stop":
            return "stopped", None
        return ("failed", submission.gave_up) if submission.gave_up else ("waiting", None)


def runs_of(folder: Path) -> list[Run]:
    """Every run of a federation's folder, in the order in which they are wanted; one that cannot tell comes first."""

    def since(run: Run) -> str:
        with suppress(ConfigError):
            return run.wanted().since
        return ""

    # By either: somebody may be restoring the other.
    place = FederationFolder(folder).runs
    names = [path.name for path in (RunFolder(place).description, RunFolder(place).wanted)]
    files = [path for name in names for path in place.glob(f"*/{name}")]
    runs = {Run(path.parent) for path in files if is_site_name(path.parent.name)}
    return sorted(runs, key=lambda run: (since(run), run.name))


def find_run(folder: Path, name: str) -> Run:
    """Find a run by its name, or raise ConfigError."""
    runs = {run.name: run for run in runs_of(folder)}
    if name not in runs:
        raise ConfigError(f"{name}: no such run; there are: {', '.join(runs) or 'none yet'}")
    return runs[name]


def new_run(
    folder: Path, name: str, config: RunConfig, overrides: Sequence[str], code: bytes, given: "Given | None" = None
) -> Run:
    """Make a run's folder, whole or not at all, with its code bundle and the weights that it was given; it is wanted
    from then on. Raises ConfigError.
    """
    run = Run(FederationFolder(folder).runs / name)
    if not is_site_name(name):
        raise ConfigError(f"name={name}: must be letters, digits, dots, dashes or underscores, at most 64")
    saved = {"run_id": uuid4().hex, "config_hash": config.hash, "versions": versions(), "run": asdict(config)}
    saved["code_sha256"] = hashlib.sha256(code).hexdigest()
    with lock_file(FederationFolder(folder).runs_lock, "", wait=None):  # two commands may give one name
        if run.folder.exists():
            raise ConfigError(f"name={name}: there is a run of this name; give another, or {run.resume_command}")
        about = {key: saved[key] for key in ("run_id", "config_hash", "code_sha256")}
        note_act(folder, "run_submitted", run=name, **about)
        with new_folder(run.folder) as half:
            write_bytes(Run(half).files.code, code)
            if given:
                given.keep(Run(half).files)
            write_json(Run(half).files.description, saved | {"overrides": list(overrides)})
            Run(half).want("run")
    return run


def announce(run: Run) -> str:
    """Note that a run's server is to be started; return the random id by which it finds the run.

    Flower shows every hospital what a run is started with, so it must tell neither folder nor name.
    """
    id = uuid4().hex
    write_json(FederationFolder(run.folder.parents[1]).announced, {"submission": id, "run": run.name})
    return id


def announced(folder: Path, id: str) -> Run:
    """Find the run that was announced last under this id, or raise ConfigError: another one has taken its place."""
    name, file = None, FederationFolder(folder).announced
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(file.read_text())
        name = known["run"] if known["submission"] == id else None
    if name is None:
        raise ConfigError(f"{file}: does not name this submission; start submits the run again")
    return find_run(folder, name)


@lru_cache(maxsize=256)
def _events(file: Path, *_: int) -> tuple[Event, ...]:
    """A history as it was at one moment; kept, since `start` looks at every run every two seconds."""
    return tuple(History(file).events())


def _read(kind: type[T], path: Path) -> T:
    try:
        return parse(kind, path.read_text())
    except (OSError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from None
