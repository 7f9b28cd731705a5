"""The frozen cohort: who is admitted, and what is noticed later."""

import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from frozen_site import DATA, changed, scan

from gliofed.client.doctor import manifest
from gliofed.client.doctor.consent import add_withdrawn
from gliofed.client.doctor.manifest import NonePassedError, admit
from gliofed.shared.data.volume import DataError
from gliofed.shared.site_config import SiteConfig


def test_cases_that_fail_are_left_out_and_counted(site: SiteConfig) -> None:
    scan(site, 1).write_bytes(scan(site, 1).read_bytes()[:-100])
    scan(site, 2, "_seg.nii.gz").unlink()
    admitted = admit(site, DATA, "segmentation")
    assert [case.patient for case in admitted.cases] == [scan(site, 0).parent.name]
    assert admitted.left_out == {"truncated": 1, "missing_mask": 1}
    assert admit(site, DATA, "segmentation") == admitted


def test_what_is_in_no_case_is_named_in_the_sites_log(site: SiteConfig, caplog: pytest.LogCaptureFixture) -> None:
    scan(site, 0).parent.rename(Path(site.root) / "renamed")
    admit(site, DATA, "segmentation")
    assert [line.startswith("not understood: ") and "renamed" in line for line in caplog.messages] == [True]


def test_nobody_passes(site: SiteConfig) -> None:
    with pytest.raises(NonePassedError) as caught:
        admit(replace(site, labels="brats2023"), DATA, "segmentation")
    assert caught.value.code == "label_values" and "none of 3" in str(caught.value)
    assert caught.value.left_out == {"label_values": 3}


def test_a_frozen_cohort_is_not_read_again(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is a new process in a hospital: a round must not cost a check of every voxel."""
    first = admit(site, DATA, "segmentation")
    monkeypatch.delattr(manifest, "examine")
    monkeypatch.delattr(manifest.hashlib, "file_digest")
    assert admit(site, DATA, "segmentation") == first


def test_one_byte_that_changed_is_noticed(site: SiteConfig) -> None:
    """At the same size, too: only the time of change and the hash tell."""
    admit(site, DATA, "segmentation")
    path = scan(site, 1)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert str(path) in changed(site)


def test_a_file_that_was_only_touched_is_hashed_once(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    admitted = admit(site, DATA, "segmentation")
    os.utime(scan(site, 0), ns=(5, 5))
    assert admit(site, DATA, "segmentation") == admitted
    monkeypatch.delattr(manifest.hashlib, "file_digest")
    assert admit(site, DATA, "segmentation") == admitted


def test_a_file_that_went_is_noticed(site: SiteConfig) -> None:
    admit(site, DATA, "segmentation")
    scan(site, 0, "_t2.nii.gz").unlink()
    assert "is gone" in changed(site)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "null", "[" * 100_000])
def test_a_manifest_that_cannot_be_read_says_so(content: str, site: SiteConfig) -> None:
    path = site.folder.manifest
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(DataError, match="no manifest"):
        admit(site, DATA, "segmentation")
    assert path.read_text() == content  # no request makes another


def test_a_grade_that_changed_is_noticed(site: SiteConfig) -> None:
    """It is in no scan."""
    admit(site, DATA, "grading")
    table = Path(site.root) / "name_mapping.csv"
    words = table.read_text()
    table.write_text(words.replace("HGG", "tmp").replace("LGG", "HGG").replace("tmp", "LGG"))
    with pytest.raises(DataError, match=r"name_mapping\.csv: changed"):
        admit(site, DATA, "grading")


def test_files_that_no_layout_reads_may_change(site: SiteConfig) -> None:
    """A report of the check that lies beside the scans, say."""
    report = Path(site.root) / "check.json"
    report.write_text("{}")
    admitted = admit(site, DATA, "segmentation")
    report.write_text("[]")
    assert admit(site, DATA, "segmentation") == admitted


def test_cases_that_come_later_do_not_belong(site: SiteConfig) -> None:
    first = scan(site, 0).parent
    kept = first.rename(Path(site.work).parent / first.name)
    admitted = admit(site, DATA, "segmentation")
    shutil.move(kept, first)
    assert admit(site, DATA, "segmentation") == admitted
    assert len(admitted.cases) == 2


READINGS: dict[str, tuple[dict[str, Any], str]] = {
    "split": ({"split_seed": 1, "validation": 0.5}, "segmentation"),
    "task": ({}, "grading"),
    "modalities": ({"modalities": ("flair",)}, "segmentation"),
    "regions": ({"regions": ("wt",)}, "segmentation"),
    "window": ({"window": 4}, "segmentation"),
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("end", ["_t1.nii.gz", "_seg.nii.gz"])
def test_a_scan_that_changed_stops_every_reading(site: SiteConfig, reading: str, end: str) -> None:
    """The server chooses split, task, modalities and regions: no choice may freeze the cohort anew, or go round it."""
    admit(site, DATA, "segmentation")
    frozen = site.folder.manifest.read_bytes()
    path = scan(site, 1, end)
    path.write_bytes(path.read_bytes()[:-100])
    words, task = READINGS[reading]
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            admit(site, replace(DATA, **words), task)
        assert caught.value.code == "changed_file" and str(path) in str(caught.value)
    assert site.folder.manifest.read_bytes() == frozen
    assert [file.name for file in site.folder.manifest.parent.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("reading", READINGS)
def test_another_reading_costs_no_read_of_the_scans(
    site: SiteConfig, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is judged as a site judges that was asked in this way first."""
    scan(site, 0, "_seg.nii.gz").write_bytes(b"")
    scan(site, 1, "_t2.nii.gz").unlink()
    words, task = READINGS[reading]
    expected = admit(replace(site, work=site.work + "-first"), replace(DATA, **words), task)
    admit(site, DATA, "segmentation")
    opened = Path.open

    def refuse(path: Path, *rest: Any, **words: Any) -> Any:
        assert ".nii" not in path.name
        return opened(path, *rest, **words)

    monkeypatch.setattr(Path, "open", refuse)  # by which the check opens every scan
    with pytest.raises(AssertionError):
        admit(replace(site, work=site.work + "-second"), DATA, "segmentation")
    assert admit(site, replace(DATA, **words), task) == expected


def test_readings_are_left_out_for_reasons_of_their_own(site: SiteConfig) -> None:
    """Grading reads no masks: a broken one keeps nobody from it. A reading of one modality asks for no other."""
    scan(site, 0, "_seg.nii.gz").write_bytes(b"")
    scan(site, 1, "_t2.nii.gz").unlink()
    scan(site, 2, "_t1.nii.gz").write_bytes(b"\x1f\x8b")
    of = partial(admit, site)
    with pytest.raises(NonePassedError) as none:
        of(DATA, "segmentation")
    assert none.value.left_out == {"empty_file": 1, "missing_modality": 1, "truncated": 1}
    assert of(DATA, "grading").left_out == {"truncated": 1}  # what is missing, grading knows
    assert of(replace(DATA, modalities=("flair", "t1")), "segmentation").left_out == {"empty_file": 1, "truncated": 1}
    assert of(replace(DATA, modalities=("flair",)), "grading").left_out == {}


@pytest.mark.skipif(sys.platform == "darwin", reason="its names are UTF-8")
def test_names_need_be_no_text(site: SiteConfig) -> None:
    """As a disk of another system may have them."""
    case = scan(site, 1).parent
    for path in case.iterdir():
        path.rename(case / os.fsdecode(path.name.encode().replace(b"002", b"\xff2")))
    odd = case.rename(case.with_name(os.fsdecode(case.name.encode().replace(b"002", b"\xff2")))).name
    admitted = admit(site, DATA, "segmentation")
    assert odd in [case.patient for case in admitted.cases] and admit(site, DATA, "segmentation") == admitted
    add_withdrawn(Path(site.work), odd)
    assert odd not in [case.patient for case in admit(site, DATA, "segmentation").cases]
