"""The proposed code: the same everywhere, all of our files and nothing else, and a bundle that lies is refused."""

import hashlib
import shutil
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab

import gliofed
from gliofed.shared import archive
from gliofed.shared.code import PACKAGES, build_code, files_of
from gliofed.shared.parse import ConfigError

ROOT = Path(gliofed.__file__).parent
HASH = "import hashlib; from gliofed.shared.code import build_code; print(hashlib.sha256(build_code()).hexdigest())"


@pytest.fixture(scope="module")
def code() -> bytes:
    return build_code()


def zipped(*entries: tuple[str, bytes]) -> bytes:
    packed = BytesIO()
    with warnings.catch_warnings(action="ignore"), ZipFile(packed, "w", ZIP_DEFLATED) as file:  # a name twice
        for name, content in entries:
            file.writestr(name, content)
    return packed.getvalue()


@pytest.mark.slow
def test_same_hash_from_another_folder(code: bytes, tmp_path: Path) -> None:
    """Two aggregators with the same software must propose the same hash, whatever lies beside the packages' files."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / "gliofed" / package)
    shutil.copy(ROOT / "__init__.py", tmp_path / "gliofed")
    for stray in ("client/__pycache__/x.pyc", "shared/data/patients.json", "server/.ipynb_checkpoints/a.py", "b.py"):
        (tmp_path / "gliofed" / stray).parent.mkdir(exist_ok=True)
        (tmp_path / "gliofed" / stray).write_text("stray")
    there = subprocess.run([sys.executable, "-c", HASH], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == hashlib.sha256(code).hexdigest() == hashlib.sha256(build_code()).hexdigest()


def test_a_file_that_flower_leaves_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It drops them without a word, and a site would run something else than the aggregator."""
    monkeypatch.setattr("gliofed.shared.code._installed", lambda: {"client/test_drive.py": b""})
    with pytest.raises(ConfigError, match=r"leaves out client/test_drive\.py"):
        build_code()
    monkeypatch.setattr("gliofed.shared.code._installed", lambda: {"gliofed/client/app.py": bytes(11 * 2**20)})
    with pytest.raises(ConfigError, match="exceeds"):
        build_code()


def test_what_flower_installs_is_what_is_shown(code: bytes, tmp_path: Path) -> None:
    """A person approves what files_of gives; Flower's own installer is the oracle of what would run."""
    folder = install_from_fab(code, tmp_path, skip_prompt=True)
    installed = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files_of(code) == installed
    assert build_fab_from_disk(folder) == code  # as `flwr run` does in that folder
    ours = {f"gliofed/{path.relative_to(ROOT)}" for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert {name for name in installed if name.endswith(".py")} == ours | {"gliofed/__init__.py"}
    assert "gliofed/configs/run.yaml" in installed
    assert {name.split("/")[0] for name in installed} == {"gliofed", "pyproject.toml"}
    assert not any(name.startswith("gliofed/simulation") for name in installed)


@pytest.mark.parametrize("name", ["../x.py", "/x.py", "client/../../x.py", "client\\x.py", "client/", "a b", "a\x00b"])
def test_paths_that_lead_elsewhere(name: str) -> None:
    """Python's writer cuts a name at NUL, so that one is put in afterwards."""
    packed = zipped(("fine.py", b""), (name.replace("\x00", "?"), b"")).replace(b"a?b", b"a\x00b")
    with pytest.raises(ConfigError, match="does not belong"):
        archive.read_zip(packed, "the code", 100)


def test_bundles_that_lie(code: bytes) -> None:
    """Flower installs also what the manifest leaves out, and of a name that is there twice the last."""
    files = archive.read_zip(code, "the code", 2**26)
    for wrong in (
        archive.write_zip(files | {"gliofed/client/evil.py": b"evil"}),
        archive.write_zip(files | {"gliofed/client/app.py": b"evil"}),
        archive.write_zip({name: content for name, content in files.items() if name != "gliofed/client/app.py"}),
        zipped(*files.items(), ("gliofed/client/app.py", b"evil")),
        code[:1000],
        b"",
    ):
        with pytest.raises(ConfigError, match="ask for a new one"):
            files_of(wrong)


def test_bomb() -> None:
    """A megabyte of zeros packs into a kilobyte."""
    with pytest.raises(ConfigError, match="too large"):
        archive.read_zip(zipped(("a", bytes(2**20))), "a kit", 2**20 - 1)
