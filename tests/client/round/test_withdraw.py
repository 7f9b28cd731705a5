"""A patient withdraws consent: out of everything in the work folder, for good."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked_site import ask, events_of
from frozen_site import frozen_anew
from small_federation import status
from withdrawal import OTHERS, WHO, command, config, frozen, traces

from gliofed.client.cli import main
from gliofed.client.doctor.consent import read_consent
from gliofed.client.doctor.manifest import read_manifest, write_manifest
from gliofed.client.round.policy import DeclinedError
from gliofed.client.round.withdraw import withdraw
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.files import write_bytes
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import SiteConfig


def test_files_of_others_do_not_keep_a_patient_in(site: SiteConfig) -> None:
    """A plain file in the cache, a deep JSON of the name of a report, a name that has this one in it."""
    work = Path(site.work)
    (work / "cache" / "notes").write_text("mine")
    (work / "deep").mkdir()
    (work / "deep" / "check.json").write_text("[" * 100_000)
    with (work / "site.log").open("a") as log:
        log.write(f"{WHO}é is another\n")
    withdraw(site, WHO)
    assert (work / "site.log").read_text().endswith(f"{WHO}é is another\n")
    assert WHO not in (work / "site.log").read_text().replace(f"{WHO}é", "").replace(f"{WHO}9", "")


def test_the_same_scans_under_another_name_are_named(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else they come in: as long as both were there, the second was left out as a duplicate of the first."""
    manifest = read_manifest(Path(site.work))
    assert manifest is not None
    (own,) = (entry for entry in manifest.entries if entry.case.patient == WHO)
    twin = replace(own, case=replace(own.case, patient="Another"))
    write_manifest(Path(site.work), replace(manifest, entries=[*manifest.entries, twin]))
    assert command(monkeypatch, WHO, site.work) == 1
    assert f"Another has the same scans as {WHO}" in capsys.readouterr().out


def test_nothing_is_left_but_the_line_of_the_log(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Path(site.work)
    assert len(traces(work)) > 6
    before = {entry.case.patient: entry for entry in frozen(work)}
    caches = {path: path.stat().st_mtime_ns for path in (work / "cache").glob("[!.]*/*")}
    replies = set((work / "outbox").iterdir())
    stored = ask(site, config(), "train")
    opened = Path.open

    def refuse(path: Path, *rest: Any, **words: Any) -> Any:
        assert ".nii" not in path.name  # nobody's scan is read for it
        return opened(path, *rest, **words)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        assert command(monkeypatch, WHO, work) == 0
    said = capsys.readouterr().out
    assert f"{WHO} is withdrawn: 1 entry of the cache and 1 stored reply removed" in said
    assert f"trained with {WHO}: run r; tell its aggregator" in said and "check.html" in said
    assert traces(work) == [] and not replies & set((work / "outbox").iterdir())
    assert f"{WHO}9" in (work / "site.log").read_text()
    assert {entry.case.patient: entry for entry in frozen(work)} == {name: before[name] for name in OTHERS}
    left = {path: path.stat().st_mtime_ns for path in (work / "cache").glob("*/*")}
    assert left.items() < caches.items() and len({path.parent for path in left}) == 2
    (event,) = (event for event in events_of(site) if event["event"] == "withdrawn")
    assert (event["runs"], event["unknown"], event["replies"], event["cache"]) == (["r"], [], 1, 1)
    assert event["patient"] == read_consent(work).pseudonym(WHO)
    # The same request again has another answer, of those who stay; that one is stored.
    anew, again = ask(site, config(), "train"), ask(site, config(), "train")
    assert (stored.patients, anew.patients) == (3, 2)
    assert anew.update != stored.update and again.update == anew.update
    assert traces(work) == []
    read_audit(audit_file(work))


def test_the_patient_stays_out_of_a_cohort_that_is_frozen_anew(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, WHO, site.work) == 0
    words = (f"data.root={site.root}", "data.labels=mock", f"work={site.work}", f"out={tmp_path / 'o'}", "workers=1")
    data = ("data.modalities=[t1]", "data.regions=[object]", "data.spacing=null", "data.validation=0")
    assert status(monkeypatch, main, "check", *words, *data) == 0
    assert f"not read, because consent was withdrawn: {WHO}\n" in capsys.readouterr().out
    assert {entry.case.patient for entry in frozen(Path(site.work))} == OTHERS
    assert traces(Path(site.work)) == [] == traces(tmp_path / "o")
    assert ask(site, config(), "train").patients == 2


def test_a_patient_of_an_earlier_cohort(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """site.yaml does not name them any more, and the cohort was frozen anew: the cache still has their scans."""
    work = Path(site.work)
    shutil.rmtree(work / "cohort")
    shutil.rmtree(work / "trained")
    assert ask(replace(site, patients=tuple(OTHERS)), config(), "query").patients == 2
    assert WHO not in {entry.case.patient for entry in frozen(work)}
    assert command(monkeypatch, WHO, work) == 0 and traces(work) == []


def test_what_a_person_put_into_the_work_folder_is_named_and_kept(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = Path(site.work) / "masks" / f"{WHO}-000-seg.nii.gz"
    mask.parent.mkdir()
    mask.write_bytes(b"mask")
    assert command(monkeypatch, WHO, site.work) == 1
    assert f"still names {WHO}: {mask}; remove it" in capsys.readouterr().out
    mask.unlink()
    assert command(monkeypatch, WHO, site.work) == 0


def test_runs_and_replies_of_an_earlier_version_may_have_anybody(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They did not note whom they trained with."""
    work = Path(site.work)
    shutil.rmtree(work / "trained")
    (head,) = (work / "outbox").glob("*.json")
    head.write_text(head.read_text().replace('"trained_on"', '"no_field"'))
    text = head.read_text()
    head.write_text(text[: text.index(', "no_field"')] + "}")
    assert ask(site, config(), "train").patients == 3  # stored as it was
    assert command(monkeypatch, WHO, work) == 0
    assert f"may have trained with {WHO}: run r, whose list of patients is missing" in capsys.readouterr().out
    assert not list((work / "outbox").iterdir())


def test_a_list_that_cannot_be_read_stops_the_site(site: SiteConfig) -> None:
    """Else who withdrew would be trained on again."""
    assert withdraw(site, WHO).runs == ["r"]
    path = Path(site.work) / "consent.json"
    for content in ("", "{}", '{"key": "k"}', "[" * 100_000):
        path.write_text(content)
        assert ask(site, config(), "train").code == "data"
        assert f"{path}: cannot be read, so it is not known who withdrew" in (Path(site.work) / "site.log").read_text()
    path.unlink()
    assert ask(site, config(), "train").code == "data" and not path.exists()
    assert f"{path}: is gone, so it is not known who withdrew" in (Path(site.work) / "site.log").read_text()


@pytest.mark.parametrize("damaged", [False, True])
def test_whatever_the_manifest_is_like(
    site: SiteConfig, damaged: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damaged, or of version 1: consent can be withdrawn, and the file that still names the patient is said."""
    work, path = Path(site.work), site.folder.manifest
    if damaged:
        path.write_text(path.read_text()[:-10])
    else:
        path = path.rename(path.with_name("0123.json"))
    shutil.rmtree(work / "cache")
    assert command(monkeypatch, WHO, work) == 1
    assert f"still names {WHO}: {path}; freeze the cohort anew: gliofed-client check" in capsys.readouterr().out
    assert not read_consent(work).given(WHO) and traces(work) == [str(path.relative_to(work))]
    frozen_anew(site)
    assert traces(work) == [] and {entry.case.patient for entry in frozen(work)} == OTHERS


@pytest.mark.parametrize("layout", [True, False])
def test_a_patient_who_is_not_frozen_yet(site: SiteConfig, layout: bool, tmp_path: Path) -> None:
    """The scans are there, and a later check would take them in; also where no layout knows them yet."""
    new = replace(site, work=str(tmp_path / "new"))
    if not layout:
        (tmp_path / "odd" / WHO / f"{WHO}-000").mkdir(parents=True)
        new = replace(new, root=str(tmp_path / "odd"))
    write_bytes(Path(new.work) / "site.log", f"{WHO}-000 and {WHO}9".encode())
    withdraw(new, WHO)
    assert (Path(new.work) / "site.log").read_text() == f"(withdrawn)-000 and {WHO}9"
    with pytest.raises(ConfigError, match="nothing of such a patient"):
        withdraw(new, "Mock")
    assert not read_consent(Path(new.work)).given(WHO)
    assert {entry.case.patient for entry in frozen(Path(frozen_anew(replace(new, root=site.root)).work))} == OTHERS


def test_a_log_that_cannot_be_written_keeps_nobody(site: SiteConfig) -> None:
    """It is said, and noted when the command is given again."""
    head = audit_file(Path(site.work)).parent / "head.json"
    kept = head.read_text()
    head.write_text("{}")
    with pytest.raises(DeclinedError, match=r"head\.json: cannot be read"):
        withdraw(site, WHO)
    head.write_text(kept)
    assert traces(Path(site.work)) == []
    withdraw(site, WHO)
    assert [event["runs"] for event in events_of(site) if event["event"] == "withdrawn"] == [["r"]]
