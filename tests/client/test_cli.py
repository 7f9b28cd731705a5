"""gliofed-client check, as a hospital meets it."""

import io
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import pytest
from omegaconf import OmegaConf
from planted import PLANTS, of

import gliofed.configs
import gliofed.shared.data.prepare
from gliofed.client.cli import main
from gliofed.client.doctor import check_command, manifest
from gliofed.client.doctor.findings import Finding
from gliofed.client.doctor.judgement import CaseReport
from gliofed.client.doctor.page import page
from gliofed.shared.config import DataConfig
from gliofed.shared.data.dataset import open_cohort
from gliofed.shared.data.layouts import Inventory
from gliofed.shared.site_config import CheckConfig, SiteConfig
from gliofed.shared.terminal import plain
from gliofed.simulation.phantom import PhantomConfig, write_phantoms

DATA = DataConfig(
    modalities=("flair", "t1", "t1ce", "t2"),
    regions=("et", "tc", "wt"),
    window=5,
    spacing=None,
    patch=(96, 96, 96),
    validation=0.2,
    split_seed=0,
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cases")
    write_phantoms(PhantomConfig(patients=2, resolution=8.0), root, 0)
    return root


def check(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "check", "workers=1", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


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


WRONG = [
    ("data.root=.", "data.labels=brats2020", "data.masks=some"),
    ("data.root=none", "data.labels=brats2020"),
    ("data.root=.",),
    ("data.rot=x",),
    ("data.root=.", "data.labels=zzz"),
    ("data.root=.", "data.labels=brats2020", "data.modalities=5"),
    ("data.root=.", "data.labels=brats2020", "data=5"),
    ("data.root=.", "data.labels=brats2020", "check=5"),
    ("data.root=.", "data.labels=brats2020", "check.size=[9,3]"),
    ("data.root=.", "data.labels=brats2020", "task=guessing"),
    ("data.root=.", "data.labels=brats2020", "workers=0"),
]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(monkeypatch, *words) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_mistyped_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra would have the user append it, which ends in the next error."""
    assert check(monkeypatch, "data.rot=x") == 2
    assert "data.rot: no such setting (did you mean data.root?); see" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_refused_before_the_work(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = (f"data.root={cases}", "data.labels=brats2020", f"out={tmp_path / 'file'}")
    assert check(monkeypatch, *words) == 2
    assert "out=" in capsys.readouterr().err


def test_the_yaml_says_the_defaults_of_the_code() -> None:
    """A site's own configuration leaves `check` out and gets what the command checks by."""
    written = OmegaConf.load(Path(gliofed.configs.__path__[0]) / "check.yaml").check
    assert CheckConfig(**{**written, "spacing": tuple(written.spacing), "size": tuple(written.size)}) == CheckConfig()
    assert set(written) == set(asdict(CheckConfig()))


def test_names_of_files_are_not_markup() -> None:
    """Whoever names a file must not write into the page or to the terminal."""

    class Tags(HTMLParser):
        seen: set[str] = set()

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.seen.add(tag)

    evil = "<script>alert(1)</script><img src=x onerror='y'>\udcff"
    finding = Finding(code="unreadable", message=f"{evil}: broken", file=evil)
    shown = page([CaseReport(evil, evil, "error", [finding], [])], [finding], {evil: 1}, {"root": evil})
    Tags().feed(shown)
    assert not Tags.seen & {"script", "img"}
    assert plain("a\x1b[2J\udcff\nb") == r"a\x1b[2J\udcff\nb"


def test_the_table_is_straight_on_an_ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter that the terminal does not have is printed as several."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", "backslashreplace", write_through=True))
    monkeypatch.setenv("COLUMNS", "60")
    reports = [CaseReport(name, "1", "ok", [], []) for name in ("Müller", "P1", "ü" * 40)]
    check_command._print(reports, [], Inventory([], [], False, Counter()))
    table = [line for line in written.getvalue().decode().splitlines() if line.startswith(("+", "|"))]
    assert len({len(line) for line in table}) == 1 and any(r"M\xfcller" in line for line in table)


def test_a_work_folder_gets_the_frozen_cohort_and_its_cache(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that the first round does not wait for it: the site's own process finds both there."""
    root, work = tmp_path / "scans", tmp_path / "work"
    shutil.copytree(cases, root)
    next(root.glob("*/*_seg.nii.gz")).write_bytes(b"")
    words = [f"data.root={root}", "data.labels=brats2020", "data.spacing=null", f"work={work}", f"out={tmp_path / 'o'}"]
    assert check(monkeypatch, *words) == 1
    assert "frozen and prepared: 1 patient to train" in capsys.readouterr().out
    monkeypatch.delattr(manifest, "examine")
    monkeypatch.setattr(gliofed.shared.data.prepare, "read_volume", None)
    site = SiteConfig(name="a", root=str(root), labels="brats2020", work=str(work))
    admitted = manifest.admit(site, DATA, "segmentation")
    assert admitted.left_out == {"empty_file": 1}
    assert len(open_cohort(site, DATA, "visits", admitted.cases).train) == 1


def test_folders_may_have_signs_that_hydra_knows(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "at home, x=1 ü([#'"
    shutil.copytree(cases, root)
    assert check(monkeypatch, f"data.root={root}", "data.labels=brats2020", f"out={tmp_path / 'a,b=c'}") == 0


def test_a_work_folder_that_is_a_file_is_refused_before_the_work(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = (f"data.root={cases}", "data.labels=brats2020", f"work={tmp_path / 'file'}", f"out={tmp_path / 'o'}")
    assert check(monkeypatch, *words) == 2
    assert capsys.readouterr().err.startswith("gliofed-client: work=")


def test_an_interruption_while_a_command_is_loading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch and Hydra take seconds; Ctrl-C in them is no fault with a traceback."""

    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "gliofed.client.round.audit_command":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "gliofed.client.round.audit_command", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "audit", "verify", "work"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130 and capsys.readouterr().err == "gliofed-client: interrupted\n"


def test_what_it_writes_is_for_nobody_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Scans that were prepared, masks and updates; a hospital's machine has other users."""
    before = os.umask(0o022)
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert os.umask(before) == 0o077
