"""A folder's patients: what is measured of them, once, and a folder dealt by a partition."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from small_run import as_given

import gliofed.simulation.profiles
from gliofed.shared.data.cases import Case
from gliofed.shared.data.volume import Scan, tumour_volume
from gliofed.shared.parse import ConfigError
from gliofed.shared.seeding import generator
from gliofed.simulation.profiles import Profile, profile
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.sites import make_sites


def write(path: Path, voxels: int, spacing: tuple[float, ...] = (1, 2, 3), descrip: str = "") -> Scan:
    """A volume of 8 x 8 x 8 with so many voxels of label 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(512, np.uint8)
    array[:voxels] = 2
    image = nib.Nifti1Image(array.reshape(8, 8, 8), np.diag([*spacing, 1]))
    image.header["descrip"] = descrip.encode()
    nib.save(image, path)
    return Scan(path)


def case(name: str, mask: Scan | None = None, image: Scan | None = None, **known: Any) -> Case:
    known = {"grade": None} | known
    return Case(
        patient=name, visit="000", images={"t1": image} if image else {}, mask=mask, labels="brats2020", **known
    )


def measured(cases: list[Case], partition: str, root: Path) -> dict[str, Profile]:
    return {one.name: one for one in profile(cases, partition, root, root / "store.json", lambda *_: None)}


def test_volume_is_in_mm3_of_the_first_visit_with_a_mask(tmp_path: Path) -> None:
    first, later = write(tmp_path / "a1.nii.gz", 5), write(tmp_path / "a2.nii.gz", 50)
    cases = [case("a"), case("a", first), case("a", later), case("b")]
    assert {name: one.volume for name, one in measured(cases, "by_size", tmp_path).items()} == {"a": 30.0, "b": None}


def test_a_file_is_measured_once_and_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case(name, write(tmp_path / f"{name}.nii.gz", 5)) for name in "ab"]
    measured(cases, "by_size", tmp_path)
    opened = []
    monkeypatch.setattr(
        gliofed.simulation.profiles,
        "tumour_volume",
        lambda mask: (opened.append(mask.path.name), tumour_volume(mask))[1],
    )
    assert measured(cases, "by_size", tmp_path)["a"].volume == 30.0
    assert opened == []
    write(tmp_path / "a.nii.gz", 7)
    os.utime(tmp_path / "a.nii.gz", ns=(1, 1))
    assert measured(cases, "by_size", tmp_path)["a"].volume == 42.0
    assert opened == ["a.nii.gz"]
    (tmp_path / "store.json").write_text("{")  # a store may be lost or damaged at any time
    assert measured(cases, "by_size", tmp_path)["a"].volume == 42.0


def test_a_damaged_file_stops_nobody(tmp_path: Path) -> None:
    """The site that gets the patient leaves it out and says why; here its volume and scanner are not known."""
    (tmp_path / "bad.nii.gz").write_bytes(b"no gzip")
    bad = Scan(tmp_path / "bad.nii.gz")
    cases = [case("a", bad, bad), case("b", write(tmp_path / "b.nii.gz", 1), Scan(tmp_path / "gone.nii"))]
    found = measured(cases, "by_size", tmp_path)
    assert (found["a"].volume, found["b"].volume) == (None, 6.0)
    assert {one.scanner for one in measured(cases, "by_scanner", tmp_path).values()} == {None}


def test_a_scanner_is_told_or_read_off_the_header(tmp_path: Path) -> None:
    """Spacing and description tell scanners apart; the time of a scan, which dcm2niix notes there, does not."""
    images = [
        write(tmp_path / "a.nii.gz", 0, descrip="TE=3;Time=101530.2;phase=1"),
        write(tmp_path / "b.nii", 9, descrip="TE=3;Time=90000.1;phase=1"),
        write(tmp_path / "c.nii.gz", 0, descrip="TE=9;Time=101530.2;phase=1"),
        write(tmp_path / "d.nii.gz", 0, (1, 1, 5), descrip="TE=3;phase=1"),
    ]
    cases = [case(name, image=image) for name, image in zip("abcd", images, strict=True)]
    found = measured([*cases, case("e", image=images[0], scanner="Trio")], "by_scanner", tmp_path)
    assert found["a"].scanner == found["b"].scanner == "1.00,2.00,3.00 mm 8,8,8 uint8 TE=3;phase=1"
    assert len({found[name].scanner for name in "acde"}) == 4
    assert found["e"].scanner == "Trio"


@pytest.mark.parametrize("partition", ["iid", "by_grade", "dirichlet", "fets2021_1"])
def test_what_needs_no_file_opens_none(tmp_path: Path, partition: str) -> None:
    missing = Scan(tmp_path / "missing.nii.gz")
    found = measured([case("a", missing, missing, grade="LGG", side="training")], partition, tmp_path)
    assert found == {"a": Profile(name="a", grade="LGG", side="training")}
    assert not (tmp_path / "store.json").exists()


def test_dirichlet_measures_those_without_a_grade(tmp_path: Path) -> None:
    mask = write(tmp_path / "a.nii.gz", 5)
    found = measured([case("a", mask, grade="HGG"), case("b", mask)], "dirichlet", tmp_path)
    assert (found["a"].volume, found["b"].volume) == (None, 30.0)


def folder(*words: str, root: Path = Path("x")) -> dict[str, Any]:
    """A folder's composed settings."""
    return as_given(
        "data=folder", f"data.root={root}", "data.labels=brats2020", "data.modalities=[t1]", "model=unet", *words
    )


def dealt(root: Path, out: Path, *words: str) -> tuple[list[tuple[str, ...]], Any]:
    """The cohorts of a folder's sites, and what sites.json says."""
    values = folder(*words, root=root)
    run, settings = parse_settings(values)
    made = make_sites(values["data"], run, settings, out, lambda *_: None)
    return [site.patients or () for site in made], json.loads((out / "sites.json").read_text())


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    """20 patients, the later the larger the tumour."""
    for number in range(20):
        name = f"Case_{number:02d}"
        for kind in ("t1", "seg"):
            write(tmp_path / "brats" / name / f"{name}_{kind}.nii.gz", number + 1)
    return tmp_path / "brats"


def test_a_folder_is_dealt_and_shown_without_names(brats: Path, out: Path) -> None:
    cohorts, shown = dealt(brats, out, "partition=by_size", "sites=5")
    assert cohorts == [tuple(f"Case_{n:02d}" for n in range(site * 4, site * 4 + 4)) for site in range(5)]
    assert (shown["partition"], shown["patients"], len(shown["sites"])) == ("by_size", 20, 5)
    assert shown["sites"]["site-1"]["classes"] == {"volume, 1st quarter": 4}
    assert sum(sum(site["used"].values()) for site in shown["sites"].values()) == 20
    assert (out / "sites.png").read_bytes().startswith(b"\x89PNG")
    assert "Case" not in (out / "sites.json").read_text()


def test_who_is_not_dealt_is_counted(brats: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Patients vanished without a word: from a renamed folder, and without a mask."""
    (brats / "Case_00").rename(brats / "renamed")
    (brats / "Case_01/Case_01_seg.nii.gz").unlink()
    cohorts, _ = dealt(brats, out)
    assert sum(map(len, cohorts)) == 18
    printed = capsys.readouterr().out
    assert "not understood: 1 folder with 2 image files" in printed and "of 19 cases 1 lacks" in printed


def test_iid_is_the_deal_that_earlier_runs_had(brats: Path, out: Path) -> None:
    """A run that is resumed, or repeated at its seed, must find its patients where they were."""
    order = generator(0, "deal").permutation(20)
    cohorts, shown = dealt(brats, out)
    assert cohorts == [tuple(sorted(f"Case_{n:02d}" for n in order[site::4])) for site in range(4)]
    assert shown["sites"]["site-1"]["classes"] == {"not known": 5}


def test_a_resumed_run_keeps_its_deal(brats: Path, out: Path) -> None:
    """Dealt anew after a patient went, training patients of one site would be validation patients of another."""
    cohorts, _ = dealt(brats, out, "partition=by_size", "sites=5")
    shutil.rmtree(brats / "Case_00")
    assert dealt(brats, out, "partition=by_size", "sites=5")[0] == cohorts
    assert dealt(brats, out, "partition=iid", "sites=5")[0] != cohorts  # another run in the same folder


def test_settings_say_how_many_sites() -> None:
    """Left out, sites are four, or those of a fets partition; the names that are expected follow."""
    assert parse_settings(as_given())[1].sites == parse_settings(folder())[1].sites == 4
    run, found = parse_settings(folder("partition=fets2021_1"))
    assert (found.sites, len(run.round.expected)) == (17, 17)
    assert parse_settings(folder("partition=fets2021_1", "sites=17"))[1].sites == 17


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (as_given("partition=dirichlet"), "partition=dirichlet: .* data=mock is written for each site"),
        (folder("partition=fets2021_1", "sites=4"), "sites=4: partition=fets2021_1 has 17 institutions"),
        (folder("partition=null"), "partition=None: unknown; known are iid"),
        (folder("partition_alpha=0"), "partition_alpha=0: must be greater than 0"),
        (folder("sites=many"), "sites=many"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_settings(values)
