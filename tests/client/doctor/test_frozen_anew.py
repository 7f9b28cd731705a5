"""A frozen cohort that fits no more: only the hospital's own command freezes another."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from frozen_site import DATA, changed, frozen_anew, scan

from gliofed.client.doctor import manifest
from gliofed.client.doctor.consent import add_withdrawn
from gliofed.client.doctor.manifest import NonePassedError, admit
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import write_json
from gliofed.shared.site_config import CheckConfig, SiteConfig


def test_a_site_yaml_that_changed_needs_the_hospitals_command(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mere request read the scans as they were by then, and took them for the cohort."""
    admit(site, DATA, "segmentation")
    stricter = replace(site, check=CheckConfig(spacing=(0.2, 1.0)))
    with monkeypatch.context() as patched:
        patched.delattr(manifest, "examine")
        said = changed(stricter)
    assert "site.yaml has spacing=[0.2, 1.0], and [0.2, 10.0] was frozen; put that back, or" in said
    assert f"work={site.work} 'check.spacing=[0.2, 1.0]'" in said
    assert len(admit(site, DATA, "segmentation").cases) == 3
    with pytest.raises(NonePassedError):
        admit(frozen_anew(stricter), DATA, "segmentation")


def test_another_root_needs_it_too(site: SiteConfig, tmp_path: Path) -> None:
    """Also where the same path leads elsewhere."""
    shutil.copytree(site.root, tmp_path / "other")
    (tmp_path / "link").symlink_to(site.root)
    linked = replace(site, root=str(tmp_path / "link"))
    admit(linked, DATA, "segmentation")
    frozen = site.folder.manifest.read_bytes()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert f"root={tmp_path}/other, and {site.root} was frozen" in changed(linked)
    assert site.folder.manifest.read_bytes() == frozen
    moved = admit(frozen_anew(linked), DATA, "segmentation")
    assert [case.images["t1"].path.parts[-3] for case in moved.cases] == ["link"] * 3


def test_a_manifest_that_is_lost_is_not_made_anew(site: SiteConfig) -> None:
    """Once the site trained: a request would take in whatever lies there by then."""
    admit(site, DATA, "segmentation")
    site.folder.manifest.unlink()
    admit(site, DATA, "segmentation")
    (Path(site.work) / "trained").mkdir()
    site.folder.manifest.unlink()
    with pytest.raises(DataError, match=r"manifest\.json: is gone since the site trained; put the old one back, or"):
        admit(site, DATA, "segmentation")


def test_fewer_patients_are_no_other_cohort(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the others do not matter then; whom the hospital names later must be frozen first."""
    names = [scan(site, place).parent.name for place in range(3)]
    some = replace(site, patients=tuple(names[:2]))
    assert len(admit(some, DATA, "segmentation").cases) == 2
    with monkeypatch.context() as patched:
        patched.delattr(manifest, "examine")
        assert [
            case.patient for case in admit(replace(site, patients=(names[0],)), DATA, "segmentation").cases
        ] == names[:1]
        shutil.move(scan(site, 1).parent, Path(site.work).parent)
        assert len(admit(replace(site, patients=(names[0],)), DATA, "segmentation").cases) == 1
        shutil.move(Path(site.work).parent / names[1], site.root)
        assert "all patients under root, and some were frozen" in changed(site)
        assert f"patients names {names[2]}, who was not frozen" in changed(replace(site, patients=(names[0], names[2])))
    assert len(admit(frozen_anew(site), DATA, "segmentation").cases) == 3
    assert len(admit(some, DATA, "segmentation").cases) == 2


def test_a_manifest_of_an_earlier_version_says_its_cure(site: SiteConfig) -> None:
    old = Path(site.work) / "cohort" / "0123456789abcdef.json"
    write_json(old, {"version": 1, "tables": {}, "cases": []})
    with pytest.raises(
        DataError, match="by an earlier version of gliofed; freeze the cohort anew: gliofed-client check"
    ):
        admit(site, DATA, "segmentation")
    assert len(admit(frozen_anew(site), DATA, "segmentation").cases) == 3 and not old.exists()


def test_who_withdrew_stays_out(site: SiteConfig) -> None:
    """Also of a cohort that is frozen anew, and where site.yaml still names them."""
    names = [scan(site, place).parent.name for place in range(3)]
    admit(site, DATA, "segmentation")
    add_withdrawn(Path(site.work), names[1])
    there = [names[0], names[2]]
    assert [case.patient for case in admit(site, DATA, "segmentation").cases] == there
    frozen_anew(site)
    assert names[1] not in site.folder.manifest.read_text()
    assert [case.patient for case in admit(replace(site, patients=tuple(names)), DATA, "segmentation").cases] == there
    for name in there:
        add_withdrawn(Path(site.work), name)
    with pytest.raises(DataError, match="every patient of the cohort withdrew"):
        admit(site, DATA, "segmentation")


def test_the_same_scans_under_another_name_stay_out(site: SiteConfig) -> None:
    """Else a scan could be trained on and validated with. Also where it is frozen anew, and the mask differs."""
    own, twin = scan(site, 0).parent, Path(site.root) / "Twin_9"
    admitted = admit(site, DATA, "segmentation").cases
    twin.mkdir()
    for file in own.iterdir():
        shutil.copy(file, twin / file.name.replace(own.name, twin.name))
    shutil.copy(scan(site, 1, "_seg.nii.gz"), twin / "Twin_9_seg.nii.gz")
    assert len(find_cases(Path(site.root), site.labels)) == 4
    anew = admit(frozen_anew(site), DATA, "segmentation")
    assert anew.cases == admitted and anew.left_out == {"duplicate": 1}
