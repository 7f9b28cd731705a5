"""gliofed-client check, as a hospital meets it."""

import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.cli import main
from simulation.phantom import PhantomConfig, write_phantoms


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_phantoms(PhantomConfig(patients=2, resolution=8.0), root, 0)
    return root


def check(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "check", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_a_clean_folder(cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, f"data.root={cases}", "data.labels=brats2020") == 0
    assert "2 cases, 0 with errors" in capsys.readouterr().out


def test_a_truncated_scan_and_a_wrong_scheme_are_named(
    cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = next(cases.glob("*/*_t1.nii.gz"))
    whole = scan.read_bytes()
    scan.write_bytes(whole[:-100])
    assert check(monkeypatch, f"data.root={cases}", "data.labels=brats2020") == 1
    scan.write_bytes(whole)
    assert "unreadable: " in capsys.readouterr().out
    assert check(monkeypatch, f"data.root={cases}", "data.labels=brats2023") == 1
    assert "label_values: " in capsys.readouterr().out


def test_scans_that_lie_apart_are_named(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same shape and spacing, another place: training on them would teach nonsense."""
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    scan = next(root.glob("*/*_t1.nii.gz"))
    image = nib.load(scan)
    affine = image.affine.copy()
    affine[0, 3] += 100
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), scan)
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020") == 1
    assert "affine_mismatch: " in capsys.readouterr().out


WRONG = [
    ("data.root=none", "data.labels=brats2020"),
    ("data.root=.",),
    ("data.rot=x",),
    ("data.root=.", "data.labels=zzz"),
    ("data.root=.", "data.labels=brats2020", "data.modalities=5"),
]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, *words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
