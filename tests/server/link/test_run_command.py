"""gliofed-server run: what it submits, and what it refuses in one sentence."""

import hashlib
import json
import os
import pwd
import shutil
from pathlib import Path

import pytest
from small_federation import provisioned, status
from telephone import admit_told

from gliofed.client.link.join import join
from gliofed.server.cli import main
from gliofed.server.link.runs import Submission, find_run
from gliofed.server.round.history import History
from gliofed.server.round.model import export_model, first_state
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.run_folder import RunFolder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation of two, of which one is admitted; its folder's name has what Hydra's grammar would read."""
    root = tmp_path_factory.mktemp("a=b,c")
    folder = provisioned(root)
    join(folder / "kits" / "hospital-a.zip", root / "hospital-a", patients=100)
    admit_told(root / "hospital-a" / "hospital-a.request.json", folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study,x=1"))


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    return status(monkeypatch, main, "run", *words)


@pytest.fixture(scope="module")
def submitted(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The federation, to which the run `first` was submitted."""
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("submitted") / "study"))
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, f"federation={folder}", "name=first") == 0
    return folder


@pytest.fixture
def here(submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the commands are given."""
    folder = Path(shutil.copytree(submitted, tmp_path / "study"))
    monkeypatch.chdir(folder)
    return folder


def test_a_run_is_what_the_words_say_and_waits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("name=first", "experiment=unet_segmentation", "rounds=3", "model.preset=tiny")
    assert run(monkeypatch, f"federation={folder}", *words) == 0
    waits = f"gliofed-server start does not run, so it waits until then; gliofed-server status {folder}"
    assert capsys.readouterr().out == f"submitted as first; {waits}\n"
    saved = json.loads((folder / "runs" / "first" / "run.json").read_text())
    config = parse(RunConfig, saved["run"])
    assert (config.rounds, config.model.name, config.model.preset) == (3, "unet", "tiny")
    assert config.train.steps == 40  # of the experiment
    assert config.round.expected == ("hospital-a",)  # who is admitted
    assert json.loads((folder / "runs" / "first" / "wanted.json").read_text())["wanted"] == "run"
    assert (folder / "runs" / "first" / "code.fab").read_bytes() == (folder / "code.fab").read_bytes()


def test_a_run_without_a_name_is_called_by_its_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert run(monkeypatch) == 0
    (made,) = (folder / "runs").glob("20*")
    assert made.name.count("-") == 5


def test_a_stopped_run_goes_on_with_resume(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(monkeypatch, main, "stop") == 0
    assert run(monkeypatch, "resume=first") == 0
    assert json.loads((here / "runs" / "first" / "wanted.json").read_text())["wanted"] == "run"


def test_a_run_that_is_still_being_stopped_goes_on_with_resume(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower takes a while: stop and resume may be one line of a shell."""
    made = find_run(here, "first")
    made.submitted(Submission(since=made.wanted().since, flower=7))
    assert run(monkeypatch, "resume=first") == 2  # it runs
    assert status(monkeypatch, main, "stop") == 0
    assert made.state() == ("running", None)
    assert run(monkeypatch, "resume=first") == 0
    assert (made.wanted().wanted, made.submission().flower) == ("run", 7)


@pytest.mark.parametrize("reason", [None, "round 3: the privacy budget is spent at 2 of 2 sites"])
def test_a_run_that_ended_says_why_it_cannot_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reason: str | None
) -> None:
    end = {"event": "end", "status": "incomplete"} | ({"reason": reason} if reason else {})
    History(here / "runs" / "first" / "history.jsonl").append(end)
    capsys.readouterr()
    assert run(monkeypatch, "resume=first") == 2
    said = capsys.readouterr().err
    assert said == f"gliofed-server: resume=first: {reason or 'it has trained to its last round'}; submit a new run\n"


def test_who_submitted_stopped_and_resumed_a_run_is_in_the_log(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(monkeypatch, main, "stop", "first") == 0
    assert run(monkeypatch, "resume=first") == 0
    assert run(monkeypatch, "name=../x") == run(monkeypatch, "name=first") == 2  # not done, and not noted
    *_, submitted, stopped, resumed = read_audit(audit_file(here)).events()
    saved = find_run(here, "first").saved()
    assert {"event": "run_submitted", "run": "first", "code_sha256": saved["code_sha256"]}.items() <= submitted.items()
    assert submitted["run_id"] == saved["run_id"] and submitted["config_hash"] == saved["config_hash"]
    assert [each["event"] for each in (stopped, resumed)] == ["run_stopped", "run_resumed"]
    assert {each["user"] for each in (submitted, stopped, resumed)} == {pwd.getpwuid(os.getuid()).pw_name}


# What the run's own configuration cannot be is test_cli's of the simulation: both take it from `parse_run`.
WRONG = {
    ("model=resnet",): "resnet",
    ("rounds=0",): "rounds=0",
    ("round=5",): "round",
    ("sites=3",): "sites",
    ("data.root=/scans",): "data.root: each hospital's own",
    ("round.expected=[hospital-b]",): "hospital-b is not admitted",
    ("privacy.epsilon=3",): "privacy=dp_sgd",
    ("name=../x",): "name=../x",
    ("resume=none",): "none: no such run",
    ("resume=none", "rounds=3"): "drop rounds=3",
    ("resume=none", "name=x"): "drop name=x",
    ("-m", "seed=1,2"): "one by one",
    ("rounds",): "rounds",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_use_is_one_sentence_with_status_2(
    words: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("gliofed-server: ")
    assert WRONG[words] in said
    assert said.count("\n") == 1
    assert not (folder / "runs").exists()


@pytest.fixture
def left(tmp_path: Path, submitted: Path) -> Path:
    """The folder of a run that has left a model: that of the run `first`, untrained."""
    config = parse(RunConfig, find_run(submitted, "first").saved()["run"])
    files = RunFolder(tmp_path / "a=b,c run")
    state, _ = first_state(config, files)
    export_model(files, files.model, config, "run", state)
    return files.root


def test_given_weights_are_copied_into_the_run(
    folder: Path, left: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server that trains it, and every start after, needs nothing but the run's folder."""
    weights = (left / "model/model.safetensors").read_bytes()
    assert run(monkeypatch, f"federation={folder}", "name=second", f"init={left}") == 0
    assert capsys.readouterr().out.startswith("submitted as second;")
    made = find_run(folder, "second")
    config = parse(RunConfig, made.saved()["run"])
    assert config.init == hashlib.sha256(weights).hexdigest() and config.hash == made.saved()["config_hash"]
    shutil.rmtree(left)
    assert (made.folder / "init/model.safetensors").read_bytes() == weights
    made.check()
    (made.folder / "init/model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(ConfigError, match="not the weights that the run began with; put init/ back from a copy"):
        made.check()


def test_weights_of_another_model_make_no_run(
    folder: Path, left: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"federation={folder}", "name=second", f"init={left}")
    assert run(monkeypatch, *words, "model.preset=tiny") == 2
    said = capsys.readouterr().err
    assert f"init={left}: was trained with model.preset=" in said and "this run has model.preset=tiny" in said
    assert said.count("\n") == 1 and not (folder / "runs").exists()
    (left / "model/model.json").unlink()
    assert run(monkeypatch, *words[:2], f"init={left}/model/model.safetensors") == 0
    assert "no model.json beside it, so nothing tells which channels" in capsys.readouterr().out


def test_other_code_than_the_hospitals_approved_is_not_submitted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server would read a run with code that the sites do not have."""
    (folder / "code.fab").write_bytes(b"older")
    assert run(monkeypatch, f"federation={folder}") == 2
    assert "provision" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["site.json", "key.pub"])
def test_a_damaged_record_of_one_site_stops_no_run_of_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    join(folder / "kits" / "hospital-b.zip", tmp_path / "hospital-b", patients=100)
    admit_told(tmp_path / "hospital-b" / "hospital-b.request.json", folder)
    record = folder / "sites/hospital-b" / file
    record.write_text("{half")
    monkeypatch.chdir(folder)
    assert run(monkeypatch, "name=first") == 0
    assert "the run does not expect hospital-b\nsubmitted as first;" in capsys.readouterr().out
    assert parse(RunConfig, find_run(folder, "first").saved()["run"]).round.expected == ("hospital-a",)
    assert run(monkeypatch, "name=second", "round.expected=[hospital-b]") == 2
    assert f"hospital-b/{file}: " in capsys.readouterr().err


def test_a_federation_of_nobody_has_no_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, f"federation={provisioned(tmp_path)}") == 2
    assert "no site is admitted yet" in capsys.readouterr().err


def test_help_and_cfg_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["--help"], ["--cfg", "job"]):
        assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "federation=DIR" in said
    assert "evaluate_every: 1" in said
    assert list(tmp_path.iterdir()) == []
