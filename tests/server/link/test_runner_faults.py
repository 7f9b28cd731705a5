"""How `start` goes on with runs whose server died, whose files are damaged, or whose disk is full."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_flower import MEMBERS, ROUND, runner, write

import gliofed.server.link.runner
import gliofed.server.link.runs
from gliofed.server.link.runner import MOST_TRIES, PAUSES
from gliofed.server.link.runs import Run
from gliofed.shared.files import write_json


def test_a_run_whose_server_died_is_submitted_again_after_growing_pauses(
    make: Callable[[str], Run], study: Path
) -> None:
    run, (it, flower, clock) = make("one"), runner(study)
    for pause in PAUSES[:3]:
        it.supervise(MEMBERS)
        submitted = len(flower.started)
        flower.going.clear()
        said = it.supervise(MEMBERS)
        # It has no log of its own, for it ended before it could say a word.
        assert said == [f"run one: its server ended, see {study}/link/superlink.log; again in {pause} s"]
        clock.now += pause - 0.1
        it.supervise(MEMBERS)
        assert len(flower.started) == submitted
        assert run.state() == ("waiting", None)
        clock.now += 0.2
    it.supervise(MEMBERS)
    assert len(flower.started) == 4


@pytest.mark.parametrize("lost", ["altered", "missing"])
def test_a_run_whose_code_is_lost_takes_no_other_and_lets_the_next_one_pass(
    make: Callable[[str], Run], study: Path, lost: str
) -> None:
    first, second = make("a"), make("b")
    if lost == "missing":
        (first.folder / "code.fab").unlink()
    else:
        (first.folder / "code.fab").write_bytes(b"other")
    it, flower, _ = runner(study)
    assert it.supervise(MEMBERS) == ["run b: submitted"]
    (trouble,) = it.troubles
    assert f"{first.folder}/code.fab" in trouble and "restore it from a copy" in trouble
    assert (first.state()[0], second.state()[0], flower.codes) == ("waiting", "running", [b"code"])


def test_a_run_of_an_older_version_which_kept_no_code_is_not_run(make: Callable[[str], Run], study: Path) -> None:
    run, (it, flower, _) = make("one"), runner(study)
    (run.folder / "code.fab").unlink()
    saved = json.loads((run.folder / "run.json").read_text())
    del saved["code_sha256"]
    (run.folder / "run.json").write_text(json.dumps(saved))
    it.supervise(MEMBERS)
    (trouble,) = it.troubles
    assert f"{run.folder}/run.json: of an older version" in trouble and "gliofed-server stop one" in trouble
    assert flower.codes == []


def test_a_run_is_given_up_after_ten_submissions_without_a_new_round(make: Callable[[str], Run], study: Path) -> None:
    """A round is progress, and the count begins anew."""
    run, (it, flower, clock) = make("one"), runner(study)
    for number in range(40):
        if number == 10:
            write(run, {"event": "start"}, ROUND)
        it.supervise(MEMBERS)
        flower.going.clear()
        clock.now += 100
    state, reason = run.state()
    assert len(flower.started) == 5 + MOST_TRIES
    assert state == "failed"
    assert reason is not None
    assert "gliofed-server run federation=" in reason and "resume=one" in reason
    run.want("run")
    it.supervise(MEMBERS)
    assert run.state() == ("running", None)


def test_no_server_starts_that_cannot_be_noted(
    make: Callable[[str], Run], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("one")
    it, flower, _ = runner(study)
    with monkeypatch.context() as full:
        full.setattr(gliofed.server.link.runs, "write_json", disk_full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                it.supervise(MEMBERS)
    assert flower.started == []
    assert it.supervise(MEMBERS) == ["run one: submitted"]


def disk_full(path: Path, value: object) -> None:
    raise OSError(28, "No space left on device", str(path))


def test_a_full_disk_uses_no_tries_up(make: Callable[[str], Run], study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight minutes of it were ten tries, and the run had failed."""
    run, (it, flower, clock) = make("one"), runner(study)
    with monkeypatch.context() as full:
        full.setattr(gliofed.server.link.runner, "SPARE", 2**80)
        for _ in range(2 * MOST_TRIES):
            assert it.supervise(MEMBERS) == []
            clock.now += 100
        assert len(it.troubles) == 1 and "GiB is free" in it.troubles[0]
    assert (flower.started, run.state()) == ([], ("waiting", None))
    assert it.supervise(MEMBERS) == ["run one: submitted"]
    assert it.troubles == []


def test_code_that_flower_has_unpacked_before_is_not_trusted(make: Callable[[str], Run], study: Path) -> None:
    """Flower takes what is there for the whole, also what a full disk or a kill has left."""
    half = study / "link" / "flower" / "apps" / "gliofed.gliofed.1.0.0.00000000"
    half.mkdir(parents=True)
    make("one")
    it, _, _ = runner(study)
    it.supervise(MEMBERS)
    assert not half.exists()


@pytest.mark.parametrize("file", ["wanted.json", "submission.json", "wanted.json, away"])
def test_a_run_whose_file_cannot_be_read_is_not_stopped(make: Callable[[str], Run], study: Path, file: str) -> None:
    """Flower's run is nobody's then, as far as can be told; it was stopped while somebody restored the file."""
    run, other = make("one"), make("two")
    it, flower, _ = runner(study)
    it.supervise(MEMBERS)
    path = run.folder / file.removesuffix(", away")
    whole, going = path.read_text(), flower.unfinished()
    if file.endswith("away"):
        path.unlink()
    else:
        path.write_text("{half\n")
    it.supervise(MEMBERS)
    path.write_text(whole)
    it.supervise(MEMBERS)
    assert flower.going == going
    assert (run.state(), other.state()) == (("running", None), ("waiting", None))


@pytest.mark.parametrize("file", ["wanted.json", "submission.json", "history.jsonl", "nodes.json", "agreed.json"])
def test_a_damaged_file_stops_its_own_run_alone(make: Callable[[str], Run], study: Path, file: str) -> None:
    damaged, whole = make("a"), make("b")
    it, flower, _ = runner(study)
    it.supervise(MEMBERS)
    (damaged.folder / file).write_text("{half\n")
    said = it.supervise(MEMBERS)
    if file in ("nodes.json", "agreed.json"):  # `start` knows what belongs there
        assert json.loads((damaged.folder / file).read_text()) == ({"7": "a"} if file == "nodes.json" else {"a": 40})
        return
    assert len(it.troubles) == 1 and f"a/{file}" in it.troubles[0]
    flower.going.clear()  # the server of the damaged one ends over it
    said += it.supervise(MEMBERS) + it.supervise(MEMBERS)
    assert said.count("run b: submitted") == 1
    assert whole.state() == ("running", None)


def test_a_damaged_checkpoint_uses_no_tries_up(make: Callable[[str], Run], study: Path) -> None:
    """Ten servers ended over it, which took minutes; the next run has its turn, and a person reads the cure."""
    damaged, whole = make("a"), make("b")
    write_json(damaged.folder / "checkpoints/round-0001/state.json", {})
    it, _, _ = runner(study)
    assert it.supervise(MEMBERS) == ["run b: submitted"]
    assert "round-0001: damaged" in it.troubles[0] and "remove this folder" in it.troubles[0]
    assert (damaged.submission().tries, whole.state()) == (0, ("running", None))
    shutil.rmtree(damaged.folder / "checkpoints")
    it.supervise(MEMBERS)
    assert it.troubles == []
