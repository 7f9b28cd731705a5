"""What `start` looks after, and what does not end it; tests/deploy run it."""

import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_superlink import SuperLink
from telephone import admit_told

from gliofed.server.link.control import SilentError
from gliofed.server.link.online import read_online
from gliofed.server.link.runner import Runner
from gliofed.server.link.start import HANGS, PENDING, TICK, Service, only_one
from gliofed.server.link.superlink import Link
from gliofed.shared.audit import audit_file, note_or_print, read_audit
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import print_with_time

SITES = ("hospital-a", "hospital-b")


def test_two_servers_of_one_federation_do_not_run(folder: Path) -> None:
    with only_one(folder), pytest.raises(ConfigError, match="runs already"), only_one(folder):
        pass


def test_a_start_is_noted_and_a_damaged_log_does_not_keep_the_hospitals_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is there when a machine starts again."""
    note_or_print(folder, "started")
    assert read_audit(audit_file(folder)).events()[-1]["event"] == "started"
    (folder / "audit/head.json").write_text("{half")
    note_or_print(folder, "ended")
    assert "ended, but this is not in the audit log: " in capsys.readouterr().out
    shutil.rmtree(folder / "audit")
    (folder / "audit").write_text("")
    note_or_print(folder, "ended")
    assert f"ended, but this is not in the audit log: {folder}/audit: File exists" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["site.json", "key.pub"])
def test_a_damaged_record_keeps_no_other_site_out(root: Path, folder: Path, file: str) -> None:
    """After a restart of the machine nginx would never have come back."""
    for site in SITES:
        admit_told(root / site / f"{site}.request.json", folder)
    (folder / "sites" / "hospital-a" / file).write_text("{half")
    service, superlink, _, proxy = served(folder)
    tended: list[Any] = []
    service.runner.supervise = lambda members: tended.append(members) or []  # type: ignore[func-returns-value,method-assign]
    entered, said = service.supervise()
    assert entered == "hospital-b: may connect"
    assert f"hospital-a/{file}" in said
    assert len(superlink.keys) == 1
    assert [list(members) for members in tended] == [["hospital-b"]]  # the runs go on
    assert service.trouble == said
    service.supervise()
    assert proxy.tended == 1


def test_nobody_can_connect_before_the_keys_are_registered(root: Path, folder: Path) -> None:
    """Flower's node ends for good where its key is not known, as it is not in a database that is new."""
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    service, superlink, *programs = served(folder)
    control: Any = service.link.control
    control.nodes, programs[0].runs_for = refuse, 1.0
    assert service.supervise() == ["the SuperLink starts"]
    assert (programs[0].tended, programs[1].tended) == (1, 0)
    control.nodes = superlink.nodes
    assert service.supervise() == ["hospital-a: may connect"]
    service.supervise()
    assert programs[1].tended == 1
    control.nodes = refuse  # it is started again, with its database
    service.supervise()
    assert programs[1].tended == 2
    with only_one(folder):
        known = read_online(folder)
    assert known is not None
    assert known["trouble"] == "the SuperLink starts"
    assert known["sites"]["hospital-a"]["node"] == 1


def served(folder: Path) -> tuple[Service, SuperLink, "FakeProgram", "FakeProgram"]:
    """What `start` looks after, with programs that only count."""
    programs, superlink = (FakeProgram("superlink"), FakeProgram("nginx")), SuperLink()
    control = SimpleNamespace(**{name: getattr(superlink, name) for name in ("nodes", "register", "unregister")})
    control.unfinished = dict
    service = Service(folder, Link(control, *programs), Runner(folder, control), clock=Clock())  # type: ignore[arg-type]
    return service, superlink, *programs


def test_a_superlink_that_hangs_is_ended_and_so_started_again(folder: Path) -> None:
    """A process that does not answer has not ended, and nobody else would end it."""
    service, superlink, program, _ = served(folder)
    control, clock = cast(Any, service.link.control), cast(Clock, service.clock)
    service.supervise()
    control.nodes = refuse
    said = []
    while not program.ended and clock.now < 2 * HANGS:
        clock.now += 30
        said += service.supervise()
    assert (program.ended, clock.now) == (1, HANGS + 30)
    assert said == ["Connection refused", "the SuperLink has not answered for 240 s; it is started again"]
    clock.now += HANGS
    program.runs_for = 1.0
    service.supervise()
    assert program.ended == 1  # the new one has its time
    program.runs_for, control.nodes = 2 * HANGS, superlink.nodes
    service.supervise()
    assert program.ended == 1


def test_a_superlink_that_starts_no_servers_is_ended_and_so_started_again(folder: Path) -> None:
    """Flower's superexec does it, and nobody starts that again."""
    service, _, program, _ = served(folder)
    cast(Any, service.link.control).unfinished = lambda: {}
    service.supervise()
    service.runner.pending = lambda: PENDING + TICK  # type: ignore[method-assign]
    assert service.supervise() == ["a run has had no server for 120 s; the SuperLink is started again"]
    assert program.ended == 1


@pytest.mark.parametrize("broken", ["program", "state.json"])
def test_a_full_disk_does_not_end_the_service(folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    service, _, program, proxy = served(folder)
    service.supervise()
    with monkeypatch.context() as full:
        if broken == "program":
            full.setattr(program, "supervise", disk_full)
        else:
            full.setattr("gliofed.server.link.start.write_online", disk_full)
        assert service.supervise() == ["/x: No space left on device"]
        assert service.supervise() == []  # said once
        assert proxy.tended == 2
    assert (service.supervise(), service.trouble) == ([], None)


def disk_full(*_: object) -> list[str]:
    raise OSError(28, "No space left on device", "/x")


def test_a_log_on_a_full_disk_does_not_end_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        print_with_time("a", "b")
        with suppress(OSError):
            full.close()


def test_what_is_said_is_no_command_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence may quote a file's name, or a SuperLink's words."""
    print_with_time("a\x1b[2Kb")
    assert capsys.readouterr().out.endswith(" a\\x1b[2Kb\n")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refuse() -> None:
    raise SilentError("Connection refused")


class FakeProgram:
    """A program that always runs."""

    def __init__(self, name: str) -> None:
        self.name, self.tended, self.process = name, 0, SimpleNamespace(pid=7)
        self.ended, self.runs_for = 0, 1000.0

    def supervise(self) -> list[str]:
        self.tended += 1
        return []

    def end(self) -> None:
        self.ended += 1

    def seconds(self) -> float:
        return self.runs_for
