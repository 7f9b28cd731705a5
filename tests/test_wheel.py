"""What is installed: a wheel and an sdist hold gliofed/ alone, and its commands run with no checkout in sight."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


def run(*words: object, **given: Any) -> str:
    done = subprocess.run([str(word) for word in words], text=True, capture_output=True, **given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(source: Path, into: Path, *more: str) -> list[Path]:
    run(sys.executable, "-m", "hatchling", "build", "-d", into, *more, cwd=source)
    return sorted(into.iterdir())


def names(wheel: Path) -> set[str]:
    return set(ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"), "-t", "wheel")[0]


@pytest.fixture(scope="module")
def apart(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands in an environment that has the wheel, and of this one's packages all but gliofed."""
    folder = tmp_path_factory.mktemp("apart")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path only: the .pth of an editable gliofed in that folder is not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def outside() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_a_wheel_holds_gliofed_alone(wheel: Path, apart: Path) -> None:
    """Other names, such as client, would lie beside those of other people's packages."""
    assert {name.split("/")[0].split("-")[0] for name in names(wheel)} == {"gliofed"}
    assert {"gliofed/py.typed", "gliofed/configs/run.yaml"} <= names(wheel)
    (ours,) = distributions(name="gliofed", path=[str(next(apart.parent.glob("lib/*/site-packages")))])
    scripts = {f"../../../bin/gliofed-{end}" for end in ("simulate", "client", "server")}
    files = {str(file) for file in ours.files or ()}
    assert {name for name in files if not name.startswith("gliofed")} == scripts


def test_an_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (sdist,) = built(ROOT, tmp_path / "sdist", "-t", "sdist")
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert names(built(source, tmp_path / "again", "-t", "wheel")[0]) == names(wheel)


@pytest.mark.slow  # trains
def test_the_commands_of_a_wheel(apart: Path, tmp_path: Path) -> None:
    """Train on mock series, then check and predict what was written, from a folder where nothing of gliofed lies."""
    given = {"cwd": tmp_path, "env": outside()}
    where = run(apart / "python", "-c", "import gliofed.server; print(gliofed.server.__file__)", **given)
    assert Path(where).is_relative_to(apart.parent)
    run(apart / "gliofed-simulate", "rounds=1", "train.steps=2", "data.patients=4", "out=run", **given)
    cases = tmp_path / "run/data/site-1"
    data = (f"data.root={cases}", "data.labels=mock")
    run(apart / "gliofed-client", "check", *data, "data.modalities=[t1]", "out=checked", **given)
    run(apart / "gliofed-client", "predict", "model=run/model", *data, "out=masks", **given)
    assert list(tmp_path.glob("masks/**/*.nii.gz"))
    assert "gliofed-server" in run(apart / "gliofed-server", "--help", **given)
