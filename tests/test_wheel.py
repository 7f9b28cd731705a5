"""What is installed: a wheel and an sdist hold gliofed/ alone, and its commands run with no checkout in sight."""

import os
import shutil
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

from gliofed.shared.code import build_code, files_of

pytestmark = pytest.mark.slow  # it builds and installs

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


def environment(folder: Path) -> Path:
    """Make an environment with the packages of this one, but for gliofed, and return its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path only: the .pth of an editable gliofed in that folder is not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def apart(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands in an environment that has the wheel."""
    python = environment(tmp_path_factory.mktemp("apart"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    return python.parent


def outside() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_a_wheel_holds_gliofed_alone(wheel: Path, apart: Path) -> None:
    """Other names, such as client, would lie beside those of other people's packages."""
    assert {name.split("/")[0].split("-")[0] for name in names(wheel)} == {"gliofed"}
    assert {
        "gliofed/py.typed",
        "gliofed/configs/run.yaml",
        "gliofed/shared/page/page.css",
        "gliofed/server/report/page/report.html",
    } <= names(wheel)
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


@pytest.mark.slow  # trains
def test_a_bundle_needs_nothing_that_is_installed_but_other_packages(tmp_path: Path) -> None:
    """What hospitals approve is all that runs; the simulation, which is in no bundle, only asks its ends."""
    python, code = environment(tmp_path / "bare"), tmp_path / "code"
    for name, content in files_of(build_code()).items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_bytes(content)
    shutil.copytree(ROOT / "simulation", code / "gliofed/simulation")
    ends = "import gliofed.client.deployed, gliofed.server.deployed"
    given = {"cwd": tmp_path, "env": outside()}
    done = subprocess.run([python, "-c", ends], capture_output=True, text=True, **given)
    assert done.returncode and "No module named 'gliofed'" in done.stderr
    given["env"] = given["env"] | {"PYTHONPATH": str(code)}
    run(python, "-c", ends, **given)
    words = ("rounds=1", "train.steps=1", "data.patients=4", "out=run")
    run(python, "-c", "from gliofed.simulation.cli import main; main()", *words, **given)
