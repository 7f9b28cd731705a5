"""A federation's runs on disk."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gliofed.server.link.runs import Run, find_run, runs_of
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError, parse


def test_a_new_run_is_what_a_simulation_leaves(make: Callable[[str], Run]) -> None:
    run = make("one")
    saved = json.loads((run.folder / "run.json").read_text())
    assert parse(RunConfig, saved["run"]).hash == saved["config_hash"]
    assert {"run_id", "versions", "overrides"} < saved.keys()
    assert run.state() == ("waiting", None)


@pytest.mark.parametrize("name", ["", ".x", "a/b", "../x", "x" * 65, "a b"])
def test_a_name_is_a_folders_name(make: Callable[[str], Run], name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        make(name)


def test_a_name_is_given_once(make: Callable[[str], Run], study: Path) -> None:
    make("one")
    with pytest.raises(ConfigError, match="resume=one"):
        make("one")
    with pytest.raises(ConfigError, match="two: no such run; there are: one"):
        find_run(study, "two")


def test_a_folder_that_is_half_made_is_no_run(make: Callable[[str], Run], study: Path) -> None:
    """A killed command leaves a temporary folder, or none."""
    make("one").folder.rename(study / "runs" / ".two.0.tmp")
    assert runs_of(study) == []


def test_two_commands_of_one_name_make_one_run(make: Callable[[str], Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one took the first one's folder away."""
    faults: list[str] = []

    def second() -> None:
        try:
            make("one")
        except ConfigError as error:
            faults.append(str(error))

    other, want = threading.Thread(target=second), Run.want

    def wants(run: Run, word: str) -> None:  # in the midst of the first
        if other.ident is None:
            other.start()
            other.join(0.2)
        want(run, "run")

    monkeypatch.setattr(Run, "want", wants)
    make("one")
    other.join()
    assert len(faults) == 1 and "there is a run of this name" in faults[0]
