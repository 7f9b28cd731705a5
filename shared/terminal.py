"""How a command meets its terminal: what it prints there, Ctrl-C, and a reader that has gone."""

import argparse
import errno
import getpass
import io
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gliofed.shared.entry import leave

if TYPE_CHECKING:
    from rich.text import Text

# Each command imports this first: nothing heavy here, so that Ctrl-C is answered while the rest is imported.

WRONG_USE, INTERRUPTED, UNREAD = 2, 130, 141
"""Exit statuses; the last two are a shell's for SIGINT and SIGPIPE."""


class UserError(Exception):
    """What whoever runs a command can mend: its words are one sentence with the file or the value, and the cure."""


def enter(command: str, run: Callable[[], int | None], leave_threads: bool = False) -> NoReturn:
    """Run a command and exit with its status, wherever it is started and whatever its user does meanwhile.

    Ctrl-C is status 130 and a sentence. Where nobody reads the output any more, as after `| head`, it is 141, in
    silence. A UserError, and a file that cannot be read or written, is 2 and a sentence. With `leave_threads` an
    interrupted command leaves at once, for its threads may be in the middle of something.
    """
    # Hydra makes parsers of its own, out of our reach.
    argparse.ArgumentParser.error = _wrong_use  # type: ignore[method-assign]
    _prepare_output()
    _prepare_user()
    status: Any = WRONG_USE
    try:
        status = _status(command, run)
        sys.stdout.flush()
    except _UnreadError:
        status = UNREAD
    except OSError:  # its disk is full, which was said; else Python tries again, and says it with a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if leave_threads and status in (INTERRUPTED, UNREAD):
        os._exit(status)
    sys.exit(status)


def outlive_readers() -> None:
    """Let this program go on where nobody reads its output any more: the log of a service may be restarted."""
    _Output._silent = True


def tell(command: str, sentence: str) -> None:
    """Say what is wrong."""
    print(f"{command}: {plain(sentence)}", file=sys.stderr, flush=True)


def print_with_time(*sentences: str) -> None:
    """Print sentences of a service, whose log they go into; a disk that is full under it ends nothing."""
    for sentence in sentences:
        with suppress(OSError):
            print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {plain(sentence)}", flush=True)


def command_line(*arguments: object) -> str:
    """A command, as it can be pasted into a shell.

    >>> command_line("gliofed-simulate", "resume=my runs/1")
    "gliofed-simulate 'resume=my runs/1'"
    """
    return shlex.join(map(str, arguments))


def plain(text: str) -> str:
    r"""Write what is not printable as its code: a name or a line of code may hold a terminal's commands.

    >>> plain("a\x1b[2Kb")
    'a\\x1b[2Kb'
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def cell(value: object) -> "Text":
    """A value in a table of rich: no markup, nothing that commands the terminal, and as wide as it is printed."""
    from rich.text import Text

    encoding = sys.stdout.encoding or "utf-8"  # of an ascii terminal, a letter may take four columns
    text = "" if value is None else plain(str(value))
    return Text(text.encode(encoding, "backslashreplace").decode(encoding))


def path_word(given: str) -> Path:
    """A path among a command's words, for argparse: as `home_path` reads a setting's."""
    from gliofed.shared.files import home_path

    try:
        path = home_path(given)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path.absolute() if str(path).startswith("~") else path  # Path has ./~x as ~x, which would be a user's


def _wrong_use(self: argparse.ArgumentParser, message: str) -> NoReturn:
    """Say in one sentence what is wrong, and not how a whole command is used."""
    tell(self.prog, f"{message}; see {self.prog} --help")
    sys.exit(WRONG_USE)


def _status(command: str, run: Callable[[], int | None]) -> Any:
    try:
        if signal.getsignal(signal.SIGINT) is leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run() or 0
        sys.stdout.flush()
        return status
    except SystemExit as end:
        return end.code
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever presses it again need not wait for anything
        tell(command, str(stop) or "interrupted")
        return INTERRUPTED
    except UserError as error:
        tell(command, str(error))
        return WRONG_USE
    except OSError as error:  # a full disk, or a folder of another user
        where = f"{error.filename}: " if error.filename else ""
        cure = "; make room, then start again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        tell(command, f"{where}{error.strerror or error}{cure}")
        return WRONG_USE


class _UnreadError(BaseException):
    """Nobody reads the output any more. No OSError, which would be taken for a fault of some file."""


class _Output(io.FileIO):
    """Standard output or error. A BrokenPipeError of it is none of the sockets and pipes that a command may have."""

    _silent = False

    def write(self, data: Any) -> int:
        try:
            written: Any = super().write(data)
            while written is None:  # a pipe that does not block is full
                select.select([], [self], [])
                written = super().write(data)
            return int(written)
        except BrokenPipeError:
            # Once, in the thread that can end the command; what others and `finally` print is lost.
            if self._silent or threading.current_thread() is not threading.main_thread():
                return len(data)
            self._silent = True
            raise _UnreadError from None


def _prepare_output() -> None:
    """Let standard output and error be whatever they are: ascii, a pipe that is closed, or not there at all."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # 2>&-
            setattr(sys, name, open(os.devnull, "w"))
        elif stream is getattr(sys, f"__{name}__"):  # a test's is none of a terminal
            lines = stream.line_buffering or stream.write_through
            binary = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(binary, stream.encoding, "backslashreplace", line_buffering=lines)
            setattr(sys, name, text)


def _prepare_user() -> None:
    """Give a user without a name or a home, as in some containers, what MONAI and Flower ask for on import."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/nonexistent"  # as Debian's users without a home have it
    try:
        getpass.getuser()
    except (KeyError, OSError):
        from gliofed.shared.processes import user_name

        os.environ["LOGNAME"] = user_name()
