"""gliofed-server expel: a key that was lost is shut out, whatever else is damaged; and who did what is in the log."""

import json
import os
import pwd
from pathlib import Path

import pytest
from admission import admitted, asked, record
from small_federation import status
from telephone import admit_told, told

from gliofed.server.cli import main
from gliofed.server.provisioning.admit import expel
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.parse import ConfigError


def test_another_key_needs_replace_and_the_old_one_is_gone(folder: Path, tmp_path: Path) -> None:
    first, second = asked(folder, tmp_path / "first"), asked(folder, tmp_path / "second")
    admit_told(first, folder)
    old = record(folder)
    with pytest.raises(ConfigError, match=r"admitted with another key.*--replace"):
        admit_told(second, folder)
    assert record(folder) == old
    admit_told(second, folder, replaces=True)
    assert [each["fingerprint"] for each in record(folder)["earlier"]] == [old["fingerprint"]]  # type: ignore[attr-defined]
    assert (tmp_path / "second/site.key.pub").read_text().split()[1] in (
        folder / "sites/hospital-a/key.pub"
    ).read_text()
    with pytest.raises(ConfigError, match="expelled or replaced"):  # whoever found the lost key
        admit_told(first, folder, replaces=True)


def test_expel(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert status(monkeypatch, main, "expel", "hospital-a") == 2
    assert f"never admitted in {folder}\n" in capsys.readouterr().err  # and not in "."
    request = asked(folder, tmp_path / "a")
    admit_told(request, folder)
    for words in ("hospital-a: expelled;", "expelled before"):
        assert status(monkeypatch, main, "expel", "hospital-a", "--folder", folder) == 0
        assert words in capsys.readouterr().out
    assert admitted(folder) == [] and record(folder)["expelled"]
    with pytest.raises(ConfigError, match="expelled or replaced"):
        admit_told(request, folder, replaces=True)
    again = asked(folder, tmp_path / "again")
    with pytest.raises(ConfigError, match="was expelled"):
        admit_told(again, folder)
    admit_told(again, folder, replaces=True)
    assert admitted(folder) == ["hospital-a"]


def test_who_was_admitted_and_expelled_by_whom_is_in_the_log(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asked(folder, tmp_path / "a")
    admit_told(request, folder, patients=40)
    admit_told(request, folder)  # nothing new
    user = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # a user without a name, as in some containers
    expel("hospital-a", folder)
    first, second = read_audit(audit_file(folder)).events()[-2:]
    key = told(request)
    about = {"event": "admitted", "site": "hospital-a", "user": user, "patients": 40, "fingerprint": key}
    assert about.items() <= first.items()
    assert (second["event"], second["site"], second["user"]) == ("expelled", "hospital-a", f"uid {os.getuid()}")
    assert status(monkeypatch, main, "audit", "verify", folder) == 0
    file = audit_file(folder)
    file.write_text(file.read_text().replace('"patients": 40', '"patients": 41'))
    assert status(monkeypatch, main, "audit", "verify", folder) == 1
    assert "line 3 does not follow" in capsys.readouterr().err


def test_a_damaged_log_lets_nobody_in_and_keeps_nobody_in(folder: Path, tmp_path: Path) -> None:
    a, b = (asked(folder, tmp_path / site, site) for site in ("hospital-a", "hospital-b"))
    admit_told(a, folder)
    (folder / "audit/head.json").write_text("{half")
    with pytest.raises(ConfigError, match=r"head\.json"):
        admit_told(b, folder)
    said = expel("hospital-a", folder)
    assert said[0].startswith("hospital-a: expelled;") and "not in the federation's audit log" in said[1]
    assert admitted(folder) == []


@pytest.mark.parametrize("how", ["damaged", "missing", "unreadable"])
def test_one_damaged_record_keeps_no_other_site_in_or_out(folder: Path, tmp_path: Path, how: str) -> None:
    """A key that is seen by others is shut out at once, whatever is wrong with the record of another hospital."""
    a, b = (asked(folder, tmp_path / site, site) for site in ("hospital-a", "hospital-b"))
    admit_told(a, folder)
    file = folder / "sites/hospital-a/site.json"
    whole = file.read_text()
    file.unlink()
    if how == "damaged":
        file.write_text("{half")
    elif how == "unreadable":
        file.mkdir()
    assert any(str(file) in sentence and "not known" in sentence for sentence in admit_told(b, folder))
    assert expel("hospital-b", folder)[0].startswith("hospital-b: expelled;")
    with pytest.raises(ConfigError, match=r"hospital-a/site\.json: .*restore it from a copy"):
        expel("hospital-a", folder)
    if how == "missing":  # where nobody has a copy
        assert "which keys it had before is not known any more" in admit_told(a, folder)[1]
        assert json.loads(file.read_text())["fingerprint"] == json.loads(whole)["fingerprint"]
    else:
        with pytest.raises(ConfigError, match=r"site\.json"):
            admit_told(a, folder)
