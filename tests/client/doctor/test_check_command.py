"""gliofed-client check: what it finds is on the screen, in the JSON and on the page."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import pytest
from checked_folder import check
from planted import PLANTS, of

from gliofed.shared.work_folder import WorkFolder


def test_a_clean_folder(
    cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(monkeypatch, f"data.root={cases}", "data.labels=brats2020", f"out={out}") == 0
    assert "2 cases, 0 with errors, 0 with warnings" in capsys.readouterr().out
    found = json.loads((out / "check.json").read_text())
    assert found["summary"]["ok"] == found["summary"]["cases"] == 2
    assert found["cases"] == [
        {"patient": f"BraTS20_Training_00{number}", "visit": "000", "status": "ok", "not_checked": {}, "findings": []}
        for number in (1, 2)
    ]


def test_what_is_wrong_is_on_the_screen_in_the_json_and_on_the_page(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    folder = root / "BraTS20_Training_002"
    PLANTS["non_finite"](folder)
    PLANTS["empty_mask"](folder)
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020", f"out={out}") == 1
    screen = capsys.readouterr().out
    assert "error: non_finite: " in screen and "1 case," not in screen and "2 cases, 1 with errors" in screen
    clean, spoilt = json.loads((out / "check.json").read_text())["cases"]
    assert clean["status"] == "ok" and spoilt["status"] == "error"
    assert {each["code"]: (each["severity"], each["file"]) for each in spoilt["findings"]} == {
        "non_finite": ("error", str(of(folder, "t1"))),
        "empty_mask": ("warning", str(of(folder, "seg"))),
    }
    assert all(set(each) == {"code", "severity", "file", "message"} for each in spoilt["findings"])
    shown = (out / "check.html").read_text()
    assert shown.count("<img ") == 2 and shown.count("data:image/png;base64,") == 2
    assert "http" not in shown and "<script" not in shown


def test_what_no_case_has_is_on_the_screen_in_the_json_and_on_the_page(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A patient whose folder was renamed is left out of training: status 1, though every case is without fault."""
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    (root / "BraTS20_Training_002").rename(root / "renamed")
    (root / "BraTS20_Training_001/BraTS20_Training_001_adc.nii.gz").touch()
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020", f"out={out}") == 1
    screen = capsys.readouterr().out
    assert f"error: not_understood: {root / 'renamed'}: BraTS20_Training_002_flair.nii.gz" in screen
    assert any("renamed" in line and "not_understood" in line and str(root) not in line for line in screen.splitlines())
    assert "not used: *_adc.nii.gz: 1 file\n" in screen
    last = "1 case, 0 with errors, 0 with warnings only; not understood: 1 folder with 5 image files"
    assert last in screen.splitlines()
    found = json.loads((out / "check.json").read_text())
    assert found["summary"]["not_understood"] == found["summary"]["codes"]["not_understood"] == 1
    assert [each["file"] for each in found["not_understood"]] == [str(root / "renamed")]
    assert found["not_used"] == {"*_adc.nii.gz": 1}
    shown = (out / "check.html").read_text()
    assert "In no case" in shown and "*_adc.nii.gz" in shown


def test_files_that_a_table_does_not_name_are_a_warning(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table says what is meant; the rest of a public data set may lie beside."""
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    name = "BraTS20_Training_001"
    columns = ("t1", "t1ce", "t2", "flair", "mask")
    files = [f"{name}/{name}_{column.replace('mask', 'seg')}.nii.gz" for column in columns]
    (root / "cases.csv").write_text(f"patient,{','.join(columns)}\nP,{','.join(files)}\n")
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020", f"out={out}") == 0
    assert "warning: not_understood: " in (screen := capsys.readouterr().out) and "with 5 image files" in screen


@pytest.mark.parametrize(("test", "code"), [("null", 0), ("0", 1)])
def test_who_is_only_to_be_tested_is_judged_where_the_run_tests(
    cases: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    test: str,
    code: int,
) -> None:
    """Rows of split test in a public data set often have no masks, and a run without data.test leaves them out. They
    are frozen all the same: another run of the study may test.
    """
    root, name, work = tmp_path / "cases", "BraTS20_Training_00", tmp_path / "work"
    shutil.copytree(cases, root)
    columns = ("t1", "t1ce", "t2", "flair", "mask")
    rows = [[f"{name}{n}/{name}{n}_{column.replace('mask', 'seg')}.nii.gz" for column in columns] for n in (1, 2)]
    lines = [f"patient,split,{','.join(columns)}", f"A,,{','.join(rows[0])}", f"T,test,{','.join(rows[1][:-1])},"]
    (root / "cases.csv").write_text("\n".join(lines) + "\n")
    words = (
        f"data.root={root}",
        "data.labels=brats2020",
        "data.spacing=null",
        f"data.test={test}",
        f"work={work}",
        f"out={tmp_path / 'out'}",
    )
    assert check(monkeypatch, *words) == code
    screen = capsys.readouterr().out
    assert ("error: missing_mask: T " in screen) == bool(code)
    assert ("1 patient is declared to be tested, and not judged without data.test" in screen) == (not code)
    assert {entry["case"]["patient"] for entry in json.loads(WorkFolder(work).manifest.read_text())["entries"]} == {
        "A",
        "T",
    }


def test_the_folder_of_one_case(
    cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As predict takes it."""
    root = cases / "BraTS20_Training_001"
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020", f"out={out}") == 0
    assert "1 case, 0 with errors" in capsys.readouterr().out


def test_a_warning_alone_is_status_0(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    PLANTS["empty_mask"](root / "BraTS20_Training_001")
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020", f"out={out}") == 0
    assert "warning: empty_mask: " in capsys.readouterr().out


def test_who_lacks_which_image_is_counted(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run may take such cases or leave them out; the hospital sees how many it is about, and the site follows."""
    root, work = tmp_path / "cases", tmp_path / "work"
    shutil.copytree(cases, root)
    of(root / "BraTS20_Training_001", "flair").unlink()
    cures = {
        "refuse": "add the file, or leave the case out; or train with data.missing=mask",
        "mask": "it is used without",
    }
    for missing, status in (("refuse", 1), ("mask", 0)):
        words = (
            "data.labels=brats2020",
            "data.spacing=null",
            f"data.missing={missing}",
            "data.validation=0",
            f"work={work}",
            f"out={out / missing}",
        )
        assert check(monkeypatch, f"data.root={root}", *words) == status
        screen = capsys.readouterr().out
        assert "1 of 2 cases lacks flair\n" in screen and "lacks t" not in screen
        assert f"BraTS20_Training_001 visit 000: no flair; has t1, t1ce, t2; {cures[missing]}\n" in screen
        assert f"{2 - status} patient" in screen.splitlines()[-1]
        assert json.loads((out / missing / "check.json").read_text())["summary"]["lacking"] == {"flair": 1}
        assert "1 of 2 cases lacks flair" in (out / missing / "check.html").read_text()


def test_what_could_not_be_checked_is_counted(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that finds nothing must not be taken for one that looked for all."""
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    of(root / "BraTS20_Training_001", "flair").unlink()
    words = ("data.labels=brats2020", "data.modalities=[t1,t1ce]", f"out={out}")
    assert check(monkeypatch, f"data.root={root}", *words) == 0
    line = "mask_misplaced in 1 case: no flair on the mask's grid"
    assert f"not checked: {line}\n" in capsys.readouterr().out
    assert line in json.loads((out / "check.json").read_text())["summary"]["not_checked"]
    assert "not checked" in (out / "check.html").read_text()


def test_another_scheme_and_another_policy_are_errors(
    cases: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(monkeypatch, f"data.root={cases}", "data.labels=brats2023", f"out={out}") == 1
    assert "label_values: " in capsys.readouterr().out
    words = (f"data.root={cases}", "data.labels=brats2020", "check.spacing=[0.2,4]", f"out={out}")
    assert check(monkeypatch, *words) == 1
    assert "spacing: " in capsys.readouterr().out


def test_grading_needs_no_masks(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    for folder in root.glob("BraTS20*"):
        of(folder, "seg").unlink()
    words = (f"data.root={root}", "data.labels=brats2020", f"out={out}")
    assert check(monkeypatch, *words, "task=grading") == 0
    (root / "name_mapping.csv").unlink()
    assert check(monkeypatch, *words, "task=grading") == 1
    assert "no_grade" in capsys.readouterr().out


def test_whoever_predicts_needs_no_masks(
    cases: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither asked for nor read: what lies there as one may be anything."""
    root = tmp_path / "cases"
    shutil.copytree(cases, root)
    first, second = sorted(root.glob("*/*_seg.nii.gz"))
    first.unlink()
    second.write_bytes(b"no mask")
    words = (f"data.root={root}", "data.labels=brats2020")
    assert check(monkeypatch, *words, "data.masks=none", f"out={out}") == 0
    assert "2 cases, 0 with errors, 0 with warnings" in capsys.readouterr().out
    assert check(monkeypatch, *words, f"out={out}") == 1
    assert check(monkeypatch, *words, "task=prediction", f"out={out}") == 2  # no task of a run
    for more in ("task=grading", f"work={tmp_path / 'work'}"):
        assert check(monkeypatch, *words, "data.masks=none", more, f"out={out}") == 2


def test_real_images_under_names_of_brats(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """nibabel's own: two of them are series, one has NaN; none is a brain with a tumour."""
    real = Path(nib.__file__).parent / "tests" / "data"
    folder = tmp_path / "cases" / "BraTS20_Training_001"
    folder.mkdir(parents=True)
    for modality, name in (
        ("flair", "anatomical.nii"),
        ("t1", "functional.nii"),
        ("t1ce", "example4d.nii.gz"),
        ("t2", "resampled_anat_moved.nii"),
        ("seg", "anatomical.nii"),
    ):
        shutil.copy(real / name, folder / f"{folder.name}_{modality}{name[name.index('.') :]}")
    words = (f"data.root={tmp_path / 'cases'}", "data.labels=brats2020", "check.size=[1,1024]", f"out={out}")
    assert check(monkeypatch, *words) == 1
    (case,) = json.loads((out / "check.json").read_text())["cases"]
    found = sorted((each["code"], Path(each["file"]).name.split("_")[-1]) for each in case["findings"])
    assert found == [
        ("label_values", "seg.nii"),
        ("non_finite", "t2.nii"),
        ("not_3d", "t1.nii"),
        ("not_3d", "t1ce.nii.gz"),
        ("not_skull_stripped", "flair.nii"),
    ]
