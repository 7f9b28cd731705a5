"""The frozen cohort: who is admitted, and what is noticed later."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from client.doctor import manifest
from client.doctor.manifest import NonePassedError, admit, manifest_path
from shared.config import DataConfig
from shared.data.volume import DataError
from shared.site_config import SiteConfig
from simulation.phantom import PhantomConfig, write_phantoms

DATA = DataConfig(
    modalities=("flair", "t1", "t1ce", "t2"),
    regions=("et", "tc", "wt"),
    window=1,
    spacing=None,
    patch=(16, 16, 16),
    validation=0.3,
    split_seed=0,
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_phantoms(PhantomConfig(patients=3, resolution=8.0), root, 0)
    return root


@pytest.fixture
def site(scans: Path, tmp_path: Path) -> SiteConfig:
    shutil.copytree(scans, tmp_path / "scans")
    return SiteConfig(name="a", root=str(tmp_path / "scans"), labels="brats2020", work=str(tmp_path / "work"))


def scan(site: SiteConfig, place: int, end: str = "_t1.nii.gz") -> Path:
    return sorted(Path(site.root).glob(f"*/*{end}"))[place]


def changed(site: SiteConfig) -> str:
    with pytest.raises(DataError) as caught:
        admit(site, DATA, "segmentation")
    assert caught.value.code == "changed_file"
    return str(caught.value)


def test_cases_that_fail_are_left_out_and_counted(site: SiteConfig) -> None:
    scan(site, 1).write_bytes(scan(site, 1).read_bytes()[:-100])
    scan(site, 2, "_seg.nii.gz").unlink()
    admitted = admit(site, DATA, "segmentation")
    assert [case.patient for case in admitted.cases] == [scan(site, 0).parent.name]
    assert admitted.left_out == {"truncated": 1, "missing_mask": 1}
    assert admit(site, DATA, "segmentation") == admitted


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
    path = manifest_path(site, DATA, "segmentation")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(DataError, match="no manifest"):
        admit(site, DATA, "segmentation")


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


def test_other_settings_have_a_manifest_of_their_own(site: SiteConfig) -> None:
    """Grading reads no masks: a broken one keeps nobody from it."""
    scan(site, 0, "_seg.nii.gz").write_bytes(b"")
    assert admit(site, DATA, "segmentation").left_out == {"empty_file": 1}
    assert admit(site, DATA, "grading").left_out == {}
    segmentation = json.loads(manifest_path(site, DATA, "segmentation").read_text())
    assert [len(case["errors"]) for case in segmentation["cases"]] == [1, 0, 0]
