"""`gliofed-server anew`: a site goes on with nothing kept, once, and the history has it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from plain_federation import rounds_of

import gliofed.server.round.rounds
from gliofed.server.round.anew import let_start_anew, start_anew
from gliofed.server.round.history import History, site_line
from gliofed.server.round.state import State, save_state
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import CODES
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import RunFolder
from gliofed.simulation.simulate import simulate

Config = Callable[..., RunConfig]


@pytest.fixture
def begun(tmp_path: Path, run_config: Config) -> Path:
    """The folder of a run with one finished round."""
    described(tmp_path, run_config("optimizer.moments=kept"))
    history = History(RunFolder(tmp_path).history)
    history.append({"event": "start"})
    history.append({"event": "round", "round": 1, "sites": {"a": site_line(status="counted"), "b": site_line()}})
    return tmp_path


def described(out: Path, run: RunConfig) -> None:
    RunFolder(out).description.write_text(json.dumps({"run": asdict(run)}))


def lines(out: Path) -> list[dict[str, Any]]:
    return [event for event in History(RunFolder(out).history).events() if event["event"] == "anew"]


def test_two_sites_and_one_of_them_twice(begun: Path) -> None:
    for site in ("b", "a", "b"):
        assert let_start_anew(begun, site)[0].startswith(f"{site}: starts anew in the next round")
    history = History(RunFolder(begun).history)
    assert start_anew(begun, history, 2) == start_anew(begun, history, 2) == {"a", "b"}
    assert lines(begun) == [{"event": "anew", "of_round": 2, "of_sites": ["a", "b"]}]
    assert start_anew(begun, history, 3) == set()
    let_start_anew(begun, "a")  # while the round goes on, which had to be begun again
    assert start_anew(begun, history, 2) == {"a", "b"} and len(lines(begun)) == 1


def test_a_server_that_is_killed_between_the_line_and_the_file(begun: Path) -> None:
    """It wrote a second line for the same round."""
    let_start_anew(begun, "b")
    file, history = RunFolder(begun).anew, History(RunFolder(begun).history)
    wanted = file.read_text()
    start_anew(begun, history, 2)
    file.write_text(wanted)
    assert start_anew(begun, history, 2) == {"b"}
    assert len(lines(begun)) == 1 and not file.exists()


def test_what_is_no_site_or_no_run_is_refused(begun: Path, run_config: Config) -> None:
    with pytest.raises(ConfigError, match="c: no site of this run; those that were asked are a, b"):
        let_start_anew(begun, "c")
    with pytest.raises(ConfigError, match=r"no history\.jsonl there"):
        let_start_anew(begun / "nowhere", "a")
    described(begun, run_config())
    with pytest.raises(ConfigError, match="sites keep nothing of this run"):
        let_start_anew(begun, "a")
    RunFolder(begun).description.write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json: damaged"):
        let_start_anew(begun, "a")
    history = History(RunFolder(begun).history)
    history.append({"event": "end", "status": "incomplete"})
    with pytest.raises(ConfigError, match=r"it ended \(incomplete\)"):
        let_start_anew(begun, "a")
    assert not RunFolder(begun).anew.exists()


def test_a_run_that_failed_goes_on(begun: Path) -> None:
    """For want of a quorum, since that site declines."""
    History(RunFolder(begun).history).append({"event": "end", "status": "failed"})
    assert let_start_anew(begun, "b")


@pytest.mark.parametrize("content", ["", "[", "5", "null", '"ab"', '{"a": 1}', "[5]", "[" * 100_000])
def test_a_damaged_file_is_named(begun: Path, content: str) -> None:
    """Text of another form was read as sites a and b."""
    RunFolder(begun).anew.write_text(content)
    for call in (lambda: let_start_anew(begun, "a"), lambda: start_anew(begun, History(RunFolder(begun).history), 2)):
        with pytest.raises(ConfigError, match=r"anew\.json: damaged; remove it"):
            call()
    assert not lines(begun)


@pytest.mark.slow
def test_the_site_counts_again(
    values: Callable[..., dict[str, Any]], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is lost after round 1, and the operator hears of it in round 2. Nothing else stands between rounds.

    The report of such a run failed, for it took the event's list of sites for lines of a round.
    """

    def save(folder: Path, state: State) -> None:
        save_state(folder, state)
        if state.round == 1:
            rmtree(folder / "sites" / "site-2" / "state")
        if state.round == 2:
            let_start_anew(folder, "site-2")

    monkeypatch.setattr(gliofed.server.round.rounds, "save_state", save)
    words = ("optimizer.moments=kept", "rounds=4", "round.evaluate_every=0")
    assert simulate(values("sites=2", *words, f"out={out}")).status == "incomplete"
    found = [event["sites"]["site-2"] for event in rounds_of(out)]
    assert [line["status"] for line in found] == ["counted", "declined", "counted", "counted"]
    assert found[1]["reason"] == CODES["state"]
    assert lines(out) == [{"event": "anew", "of_round": 3, "of_sites": ["site-2"]}]
