"""gliofed-client withdraw: who is withdrawn, and who agrees."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from asked_site import ask, events_of
from frozen_site import frozen_anew
from withdrawal import WHO, command, config, traces

from gliofed.client.doctor.consent import read_consent
from gliofed.client.round.withdraw import withdraw
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import lock
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import user_name
from gliofed.shared.site_config import SiteConfig


def test_a_work_folder_that_is_held_is_said(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gliofed.client.doctor.consent.WAIT", 0.1)
    with lock(Path(site.work), 1.0):
        assert command(monkeypatch, WHO, Path(site.work)) == 2
    assert f"then withdraw {WHO} again" in capsys.readouterr().err


def test_a_name_that_is_mistyped(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "Mock-1002\x1b[2J", site.work) == 2
    said = capsys.readouterr().err
    assert "has nothing of such a patient" in said and "named like Mock-01000" in said and "\x1b" not in said
    assert command(monkeypatch, WHO, tmp_path) == 2
    assert "no hospital's folder and no work folder" in capsys.readouterr().err
    assert not [event for event in events_of(site) if event["event"] == "withdrawn"]
    with pytest.raises(ConfigError, match="nothing of such a patient; look"):
        withdraw(replace(site, root=str(tmp_path / "none"), work=str(tmp_path / "new")), WHO)


def test_a_hospitals_folder(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged audit log is said, and the patient is out already."""
    (tmp_path / "site.yaml").write_text(f"name: a\nroot: {site.root}\nlabels: mock\n")
    head = audit_file(Path(site.work)).parent / "head.json"
    kept = head.read_text()
    head.write_text("{}")
    assert command(monkeypatch, WHO, tmp_path) == 2
    assert f"{head}: cannot be read" in capsys.readouterr().err and not read_consent(Path(site.work)).given(WHO)
    head.write_text(kept)
    assert command(monkeypatch, WHO, tmp_path) == 0 == command(monkeypatch, WHO, tmp_path)
    assert traces(Path(site.work)) == []


def test_who_is_asked(site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The id is typed again on a terminal; a script must say that it means it."""
    assert command(monkeypatch, WHO, site.work, yes=False) == 2
    assert "nobody to ask; give --yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for typed, given in (("", True), ("Mock-01000", True), (WHO, False)):
        monkeypatch.setattr("builtins.input", lambda _, typed=typed: typed)
        assert (command(monkeypatch, WHO, site.work, yes=False) == 2) is given
        assert read_consent(Path(site.work)).given(WHO) is given


def test_a_withdrawal_by_mistake(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is taken back in the log as well, and the hospital freezes the cohort anew; the patient may withdraw again."""
    work = Path(site.work)
    assert command(monkeypatch, WHO, work, "--undo") == 2
    assert f"{WHO}: did not withdraw, as {work} has it; look at the spelling" in capsys.readouterr().err
    assert command(monkeypatch, WHO, work) == 0 == command(monkeypatch, WHO, work, "--undo")
    assert (
        read_consent(work).given(WHO) and "is taken back; to use their scans again, freeze" in capsys.readouterr().out
    )
    assert ask(site, config(), "train").patients == 2
    assert ask(frozen_anew(site), config(), "train", round=2).patients == 3
    assert command(monkeypatch, WHO, work) == 0 and traces(work) == []
    acts = [(event["event"], event["user"]) for event in events_of(site) if event.get("patient")]
    assert acts == [(act, user_name()) for act in ("withdrawn", "readmitted", "withdrawn")]
