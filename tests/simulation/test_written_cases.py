"""A folder that simulations write cases into: whose it is, and that they take turns."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gliofed.shared.locks import lock_file
from gliofed.shared.parse import ConfigError
from gliofed.simulation.simulate import simulate
from gliofed.simulation.sites import LOCK, MARKER

Values = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_two_runs_write_one_after_the_other(values: Values, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second says that it waits, and then finds the cases there."""
    root = tmp_path / "data"
    held, said = lock_file(root / LOCK, ""), ""
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(simulate, values("rounds=1", f"data.root={root}", f"out={tmp_path / 'run'}"))
        while "another run writes its cases there" not in said and not run.done():
            said += capsys.readouterr().out
            time.sleep(0.01)
        written = {file.name for file in root.iterdir()}
        held.close()
        assert run.result().status == "done"
    assert written == {LOCK}, "nothing before it had the lock"
    assert (root / MARKER).exists()


def test_a_folder_of_somebody_s_files_is_refused_and_left_as_it_is(values: Values, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"data.root=.*not empty; cases are written here"):
        simulate(values(f"data.root={tmp_path}", f"out={tmp_path.parent / 'run'}"))
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("file", [".lock", LOCK, "run.json"])
def test_a_lock_vouches_for_nothing_that_lies_beside_it(values: Values, tmp_path: Path, file: str) -> None:
    """A run's folder has one too; a run that waited for its own would wait for ever."""
    for name in (file, "letter.txt"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()
    with pytest.raises(ConfigError, match=r"data.root=.*not empty; cases are written here"):
        simulate(values(f"data.root={tmp_path / 'data'}", f"out={tmp_path / 'run'}"))


def test_cases_are_not_written_into_the_run_itself(values: Values, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.root=.*not empty; cases are written here"):
        simulate(values(f"data.root={tmp_path / 'run'}", f"out={tmp_path / 'run'}"))


def test_what_a_killed_writer_left_is_gone_on_from(values: Values, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in (LOCK, f".{MARKER}.0.tmp"):
        (root / name).touch()
    assert simulate(values("rounds=1", f"data.root={root}", f"out={tmp_path / 'run'}")).status == "done"


@pytest.mark.slow
def test_cases_of_other_settings_are_refused(values: Values, tmp_path: Path) -> None:
    words = ("rounds=1", f"data.root={tmp_path / 'data'}")
    simulate(values(*words, f"out={tmp_path / 'one'}"))
    with pytest.raises(ConfigError, match="holds cases of other settings"):
        simulate(values(*words, "seed=1", f"out={tmp_path / 'other'}"))
