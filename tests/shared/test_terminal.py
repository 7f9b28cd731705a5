"""A command ends in a sentence or in silence, wherever it is started and whatever its user does meanwhile."""

import os
import pwd
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import gliofed.shared.terminal
from gliofed.client.round.policy import DeclinedError
from gliofed.server.link.control import ControlError
from gliofed.shared.data.volume import DataError
from gliofed.shared.locks import BusyError
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import _Output, command_line, enter

ROOT = Path(__file__).parents[2]


def started(run: str, **given: Any) -> "subprocess.Popen[str]":
    """A process that enters a command which does `run`, and hears Ctrl-C also where the tests run in the background."""
    heard = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}\nfrom gliofed.shared.terminal import enter\ndef run():\n {run}\nenter('gliofed', run)"
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | given
    return subprocess.Popen([sys.executable, "-c", code], text=True, encoding="utf-8", cwd=ROOT, **given)


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe's end to write to, whose other end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "run",
    [
        "print('x')",  # written out at the end
        "try: print('x', flush=True)\n except OSError: sys.exit('make room')",
        "from rich.console import Console; Console().print('x')",  # rich by itself leaves with status 1
        "print('x'); sys.exit(0)",  # as argparse does after --help
    ],
)
def test_nobody_reads_any_more(unread: int, run: str) -> None:
    """`| head` has seen enough: that is no full disk, as which a command's own handlers would take it."""
    process = started(run, stdout=unread)
    assert process.communicate()[1] == "" and process.returncode == 141


@pytest.mark.parametrize("command", ["gliofed-client", "gliofed-server", "gliofed-simulate"])
def test_each_command_has_this_entry(unread: int, command: str) -> None:
    words = [str(Path(sys.executable).with_name(command)), "--help"]
    done = subprocess.run(words, stdout=unread, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


def test_nothing_heavy_is_imported_outside() -> None:
    """PyTorch and Hydra take seconds, in which Ctrl-C is no traceback; and nobody waits for --help."""
    heavy = (
        "import gliofed.client.cli, gliofed.server.cli, gliofed.simulation.cli, sys\n"
        "print({'hydra', 'torch', 'pydantic'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, cwd=ROOT).stdout == b"set()\n"


def test_ctrl_c() -> None:
    process = started("print('works', flush=True)\n import time; time.sleep(600)")
    assert process.stdout is not None and process.stdout.readline() == "works\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "gliofed: interrupted\n" and process.returncode == 130


def begun(command: str, code: str) -> "subprocess.CompletedProcess[str]":
    """A process that begins a command as its script does, after this code."""
    heard = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; sys.argv = ['gliofed']\n{code}\nfrom gliofed.shared.entry import {command}; {command}()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("command", "package"), [("client", "client"), ("server", "server"), ("simulate", "simulation")]
)
def test_ctrl_c_while_a_command_is_imported(command: str, package: str) -> None:
    done = begun(
        command,
        "class Finder:\n"
        " def find_spec(self, name, *_):\n"
        f"  if name == 'gliofed.{package}.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())",
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "gliofed: interrupted\n")


def test_ctrl_c_once_a_command_is_imported() -> None:
    """What it has begun is cleaned up, and nothing leaves at once any more."""
    done = begun(
        "client",
        "import gliofed.client.cli; from gliofed.shared.terminal import enter\n"
        "def run():\n"
        " try: os.kill(os.getpid(), signal.SIGINT)\n"
        " finally: print('cleaned up')\n"
        "gliofed.client.cli.main = lambda: enter('gliofed', run)",
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "gliofed: interrupted\n")


def test_a_service_goes_on_without_a_reader(unread: int) -> None:
    """Its log may be restarted; hospitals must not be disconnected for that."""
    process = started(
        "from gliofed.shared.terminal import outlive_readers; outlive_readers(); print('x', flush=True); sys.exit(7)",
        stdout=unread,
    )
    assert process.communicate()[1] == "" and process.returncode == 7


def test_an_ascii_terminal() -> None:
    """A patient's name is then readable at least; a table has lines of ascii."""
    run = (
        "from rich.table import Table; from rich.console import Console\n print('Müller'); Console().print(Table('a'))"
    )
    process = started(run, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    said, fault = process.communicate()
    assert (process.returncode, fault) == (0, "") and said.splitlines()[0] == r"M\xfcller" and "|" in said
    assert r"\u" not in said


def test_a_table_on_an_ascii_terminal_is_straight() -> None:
    """What stands for a letter takes four columns, or six; and a long name is whole, for … would take six as well."""
    table = (
        "from rich.table import Column, Table; from rich.console import Console\n"
        " from gliofed.shared.terminal import cell\n"
        " table = Table(Column('patient', overflow='fold'), 'visits')\n"
        " for name in ('Müller', 'Łukasz', 'P1', None, 'ü' * 40, '[b]\x1b[2J'): table.add_row(cell(name), '1')\n"
        " Console().print(table)"
    )
    said, fault = started(table, env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}).communicate()
    assert fault == "" and len({len(line) for line in said.splitlines()}) == 1
    assert r"M\xfcller" in said and r"[b]\x1b[2J" in said and said.count(r"\xfc") > 30


def test_output_that_cannot_be_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that does not block, as another program may have made it, is waited for, not asked again and again."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    waits = []
    monkeypatch.setattr(gliofed.shared.terminal.select, "select", lambda *_: waits.append(os.read(reader, 2**20)))
    assert _Output(writer, "w", closefd=False).write(b"rest") == 4 and len(waits) == 1 and os.read(reader, 8) == b"rest"
    os.close(reader)
    os.close(writer)


def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        process = started("print('x')", stdout=full)
        sentence = "gliofed: No space left on device; make room, then start again\n"
        assert process.communicate()[1] == sentence and process.returncode == 2
    process = started("print('x', file=sys.stderr); sys.stderr.isatty()", preexec_fn=lambda: os.close(2))
    assert process.communicate()[0] == "" and process.returncode == 0


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (ConfigError("rounds=0: must be positive"), "rounds=0: must be positive"),
        (DataError("unreadable", "t1.nii: cut off; copy it again"), "t1.nii: cut off; copy it again"),
        (DeclinedError("audit", "audit.jsonl: read-only; mend it"), "audit.jsonl: read-only; mend it"),
        (BusyError("work: another run holds this log"), "work: another run holds this log"),
        (ControlError("the SuperLink is away"), "the SuperLink is away"),
        (
            OSError(28, "No space left on device", "out/x"),
            "out/x: No space left on device; make room, then start",
        ),
        (PermissionError(13, "Permission denied", "out/x"), "out/x: Permission denied"),
        (KeyboardInterrupt("interrupted; go on"), "interrupted; go on"),
    ],
)
def test_a_fault_is_one_sentence(fault: BaseException, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        raise fault

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        enter("gliofed", run)
    signal.signal(signal.SIGINT, handler)
    assert end.value.code == (130 if isinstance(fault, KeyboardInterrupt) else 2)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"gliofed: {sentence}")


def test_another_fault_is_ours_to_see() -> None:
    with pytest.raises(ValueError, match="ours"):
        enter("gliofed", lambda: int("ours"))


def test_a_user_without_a_name_or_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `docker run --user 12345`. MONAI asks getpass, which asks these and the list of users."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    monkeypatch.setenv("LOGNAME", "")  # so that it is put back
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(SystemExit):
        enter("gliofed", lambda: None)
    assert os.environ["LOGNAME"] == f"uid {os.getuid()}"
    assert Path.home() == Path("/nonexistent")


def test_a_command_can_be_pasted() -> None:
    path = "/a=b,(c[#&;!~' ü${x}\\"
    assert shlex.split(command_line("gliofed-simulate", f"resume={path}")) == ["gliofed-simulate", f"resume={path}"]
