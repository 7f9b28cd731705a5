"""The command as a user meets it: what is wrong is one sentence, with status 2 and no traceback."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from small_run import SMALL_DATA, as_given

import gliofed.configs
from gliofed.shared.data.volume import DataError
from gliofed.shared.parse import ConfigError
from gliofed.simulation.cli import _as_typed, _nested_last, main
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

GROUPS = sorted(
    path.relative_to(Path(gliofed.configs.__file__).parent)
    for path in Path(gliofed.configs.__file__).parent.glob("*/*.yaml")
)
FOLDER = ("data=folder", "data.labels=brats2020")

# One for each place where the command finds a fault: what Hydra refuses, what is missing, ConfigError and DataError.
WRONG_USE = {
    ("model=resnet",): ("model=resnet: unknown; there are clstm_unet3d, ",),
    ("sites=0",): ("sites=0", "greater than 0"),
    ("train.stepz=3",): ("train.stepz: no such setting (did you mean train.steps?)",),
    ("rounds=2", "rounds"): ("rounds",),
    ("data=folder",): ("data.labels, data.root: must be given",),
    (*FOLDER, "data.root=maskless"): ("maskless", "mask"),
    ("resume=empty", "rounds=3"): ("rounds=3",),
    ("model=5",): ("model=5: must be the name of a choice",),
    ("experiment=seed2_unet",): (
        "experiment=seed2_unet: unknown; there are brats, brats_small, clstm_unet3d_mock, ",
        "unet_segmentation",
    ),
    ("privacy.epsilon=3",): ("privacy.epsilon", "privacy=dp_sgd"),  # and not without privacy, in silence
    ("+privacy.epsilon=3",): ("privacy.epsilon=3", "adds"),
    ("experiment=brats_small", *FOLDER, "data.root=maskless", "data.patients=7"): (
        "data.patients=7: data=folder has no",
    ),
    ("attack=[membership]", "run=full"): ("attack=", "membership"),
}
WRONG_SETTINGS = {
    ("sites=many",): ("sites=many",),
    (*FOLDER, "data.root=empty"): ("empty",),
    (*FOLDER, "data.root=none"): ("none",),
    ("data=folder", "data.root=maskless", "data.labels=x"): ("data.labels=x", "brats2020"),
    ("device=cuda:99",): ("device=cuda:99",),
    ("resume=empty",): ("resume=", "run.json"),
    ("out=full",): ("out=", "resume="),
    ("round=null",): ("round=None",),
    ("out=afile",): ("out=", "afile"),
    ("model=unet", "+model.iterations=2"): ("model.iterations=2", "unet has dropout, deep_supervision; leave it out"),
    ("model=cnn_lstm", *FOLDER, "data.root=maskless"): ("maskless", "grade", "name_mapping.csv"),
    ("model=cnn_lstm", *FOLDER, "data.root=listed"): ("listed", "no patient has a grade", "column grade of cases.csv"),
    ("faults={site-9:nan}",): ("site-9", "site-1"),
    ("round.expected=[site-1,site-1]",): ("names site-1 twice",),
    ("faults={site-1:typo}",): ("typo", "nan"),
    ("train.epochs=1",): ("train.steps=8", "train.epochs=1"),
    ("round.quorum=9",): ("round.quorum=9", "4 sites of round.expected"),
    ("data.radius_max=20",): ("radius_max=20",),
    ("data=phantom", "data.resolution=0"): ("data.resolution=0",),
    ("faults=nan",): ("faults=nan",),
    ("faults=[a]",): ("faults=",),
    ("data.source=x",): ("data.source=x", "mock"),
    ("fold.clip=inf",): ("fold.clip=inf",),
    ("train.weight_decay=inf",): ("train.weight_decay=inf",),
    ("seed=5000000000",): ("seed=5000000000",),
    ("device=meta",): ("device=meta",),
    ("data.labels=brats2020",): ("data.labels=brats2020", "mock"),
    ("data.regions=[foo]",): ("foo", "object"),
    ("data.modalities=[t9]",): ("t9", "t1"),
    ("model=cnn_lstm",): ("data=mock", "no grades", "phantom"),
    ("task=grading",): ("model.name=clstm_unet3d", "task=segmentation", "task=grading"),
    ("task=surgery",): ("task=surgery", "grading"),
    ("model=lstm_unet", "model.iterations=0"): ("model.iterations=0",),
    ("model=cnn_lstm", "data=phantom", "model.encoder=cnn4"): ("model.encoder=cnn4", "cnn3"),
    ("train.class_weights=[1]",): ("train.class_weights",),
    ("experiment=brats_small", "data=mock"): ("data.resolution: data=mock has no such setting",),
    ("lacking=site-2",): ("lacking=site-2: must be names with a value for each",),
    ("data.spacing=[1,2]",): ("data.spacing: 2 values, and it needs more",),
    ("data.patch=32",): ("data.patch=32: must be a list, in brackets",),
    ("data.modalities=[t1,t1]",): ("data.modalities=t1,t1", "twice"),
    ("data.patch=[1024,1024,1024]",): ("data.patch", "voxels"),
    ("train.batch=100000",): ("train.batch=100000",),
    ("model.layers=10000000",): ("model.layers=10000000",),
    ("data.visits=1",): ("data.visits=1", "data.window=5"),
    ("ray.address=auto",): ("ray.address=auto", "engine=local", "engine=ray"),
    ("engine=ray", "ray.address=nowhere"): ("ray.address=nowhere", "HOST:PORT"),
    # Beyond what floating-point noise, or its search, can do.
    ("privacy=dp_sgd", "privacy.clip=1e-45"): ("privacy.clip=1e-45",),
    ("privacy=dp_sgd", "privacy.epsilon=1e308"): ("privacy.epsilon=1e+308",),
    ("privacy=central", "rounds=1000000000"): ("rounds=1000000000",),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an empty folder, one of cases without masks, and one that holds a run."""
    case = tmp_path / "maskless" / "BraTS20_Training_001"
    for folder in (tmp_path / "empty", case, tmp_path / "full"):
        folder.mkdir(parents=True)
    for name in ("flair", "t1", "t1ce", "t2"):
        (case / f"{case.name}_{name}.nii.gz").touch()
    columns = "patient,grade,flair,t1,t1ce,t2"
    names = ",".join(f"../maskless/{case.name}/{case.name}_{name}.nii.gz" for name in columns.split(",")[2:])
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "cases.csv").write_text(f"{columns}\n{case.name},,{names}\n")
    (tmp_path / "full" / "run.json").touch()
    (tmp_path / "afile").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["gliofed-simulate", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize("words", WRONG_USE, ids=" ".join)
def test_wrong_use_is_one_sentence_with_status_2(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert status_of(monkeypatch, *words) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    for word in WRONG_USE[words]:
        assert word in sentence
    assert not list(here.rglob("history.jsonl"))


@pytest.mark.parametrize("words", WRONG_SETTINGS, ids=" ".join)
def test_wrong_settings_are_one_sentence(here: Path, words: tuple[str, ...]) -> None:
    """As wrong use is, without the command, which composes twice: these errors are its status 2, as with sites=0."""
    with pytest.raises((ConfigError, DataError)) as told:
        simulate(as_given(*words))
    (sentence,) = str(told.value).splitlines()
    for word in WRONG_SETTINGS[words]:
        assert word in sentence
    assert not list(here.rglob("history.jsonl"))


def test_a_policy_is_rehearsed_here(values: Callable[..., dict[str, Any]]) -> None:
    """One patient is enough unless somebody says otherwise; one site alone can be given what a hospital has."""
    _, settings = parse_settings(values("policies={site-2:{min_patients:5,max_step_voxels:1}}"))
    assert settings.policy.min_patients == 1
    strict = settings.policies["site-2"]
    assert (strict.min_patients, strict.max_step_voxels, strict.metrics) == (5, 1, "always")
    assert parse_settings(values("policy.min_patients=5"))[1].policy.min_patients == 5


@pytest.mark.slow
def test_a_path_is_no_grammar_and_the_next_command_can_be_pasted(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders of a sweep have = and , in their names, a person's may have anything."""
    (here / "full").rename(out := here / "a=b,(c[#&;!~' ü${x}\\")
    assert status_of(monkeypatch, f"out={out}") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gliofed-simulate: out={out}: holds a run already")
    command, *words = shlex.split(said.partition("go on with ")[2])
    assert command == "gliofed-simulate"
    assert status_of(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith(f"gliofed-simulate: resume={out}: run.json is damaged")
    assert status_of(monkeypatch, "attack=canaries", f"run={out}") == 2
    assert capsys.readouterr().err.startswith(f"gliofed-simulate: run={out}: run.json is damaged")
    assert status_of(monkeypatch, "attack=canaries", f"run=[{here}/a,{here}/b]") == 2  # several are a list
    assert capsys.readouterr().err.startswith(f"gliofed-simulate: run={here}/a: no run.json there")


def test_the_words_that_a_report_repeats_are_as_they_were_typed() -> None:
    """Hydra is given paths in quotes; whoever pastes the command would quote them twice."""
    composed = OmegaConf.create({"init": "/a b/model", "seed": 1, "out": None})
    words = _as_typed(composed, ["init='/a b/model'", "seed=1", "out=null"])
    assert words == ["init=/a b/model", "seed=1", "out=null"]  # out=None would be a folder of that name


def test_help_names_every_choice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for choice in GROUPS:
        assert f"{choice.parent}={choice.stem}" in text


def test_found_from_any_directory(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("gliofed-simulate")), "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert "clstm_unet3d" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "word", ["fold.hostile=0.3", "optimizer.momentum=0.9", "algorithm.mu=0.1", "data.patch=[8,8,8]"]
)
def test_a_setting_of_any_group_waits_for_the_choice_that_is_swept(word: str) -> None:
    """fold.hostile was refused beside -m fold=trimmed_mean,krum: fold=mean, the default, has none."""
    key, value = word.split("=")
    others = ["rounds=2", "fold=krum,median", "hydra.sweep.dir=there"]
    assert _nested_last([*others, word]) == [*others, f"{key}=choice({value})"]


@pytest.mark.slow
def test_a_sweep_gives_every_run_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # Hydra notes its sweep there
    epoch = ["train.steps=null", "train.epochs=1"]  # Hydra's own choice() takes no null
    words = ["-m", "sites=1", *epoch, "model=unet,clstm_unet3d", *SMALL_DATA, "rounds=1", f"out={tmp_path / 'out'}"]
    assert status_of(monkeypatch, *words) == 0
    assert len(list(tmp_path.glob("out/*/history.jsonl"))) == len(list(tmp_path.glob("out/*/plots/curves.svg"))) == 2
    assert {path.name for path in tmp_path.glob("out/plots/*.png")} == {"losses.png", "dice.png"}  # of both together


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_run_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a setting that only the swept choices have, or that is a list, is given to every run."""
    monkeypatch.chdir(tmp_path)
    swept = ["strategy=fedadam,fedavgm", "strategy.momentum=0.5", "data.modalities=[t9],[t1]"]
    words = ["-m", "model=unet", *swept, "sites=1", "train.steps=1", *SMALL_DATA, "rounds=1", f"out={tmp_path / 'out'}"]
    assert status_of(monkeypatch, *words, "report.plots=false") == 2
    assert "t9 is not of data=mock" in capsys.readouterr().err
    runs = list(tmp_path.glob("out/*/history.jsonl"))
    assert len(runs) == 2
    assert all(json.loads((run.parent / "run.json").read_text())["run"]["strategy"]["momentum"] == 0.5 for run in runs)
    assert not list(tmp_path.glob("**/plots"))
