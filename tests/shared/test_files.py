"""Paths as users write them."""

import pwd
import signal
from pathlib import Path

import pytest
from forks import OnCall, end_of, started

from gliofed.shared.files import absolute, new_folder
from gliofed.shared.parse import ConfigError


def write(folder: Path, version: str) -> None:
    with new_folder(folder) as new:
        for file in ("a", "b"):
            (new / file).write_text(version)


@pytest.mark.slow
@pytest.mark.parametrize(
    "at", [OnCall("os", "unlink", 1), OnCall("os", "unlink", 2), OnCall("pathlib:Path", "replace", 2)]
)
def test_a_folder_is_never_there_in_part(tmp_path: Path, at: OnCall) -> None:
    """A process that was killed while it replaced one left a model whose weights were gone, described as if whole."""
    folder = tmp_path / "model"
    write(folder, "old")
    assert end_of(started(write, folder, "new", killed=at)) == -signal.SIGKILL
    assert not folder.exists() or {file.name: file.read_text() for file in folder.iterdir()} == {"a": "new", "b": "new"}
    write(folder, "next")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_path_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container there may be no home and no name; a folder's name may begin with ~; links may go in a circle."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("~/scans") == Path("/home/somebody/scans")
    assert absolute("./~old-scans/1") == tmp_path / "~old-scans/1"
    with pytest.raises(ConfigError, match=r"~old-scans/1: no such user .* a folder of that name is \./~old-scans/1"):
        absolute("~old-scans/1")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    with pytest.raises(ConfigError):
        absolute("~/scans")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ConfigError, match="a circle; give"):
        absolute("missing/../circle")
    (tmp_path / "0").mkdir()
    for number in range(50):  # more than the system follows
        (tmp_path / str(number + 1)).symlink_to(str(number))
    assert absolute("50/there") == tmp_path / "0/there"
    with pytest.raises(ConfigError, match="circle/1: links that lead in a circle"):
        absolute("circle/1")
