"""The copy of a run's log that a hospital may have: its own lines, and of the others a hash that tells nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import composed

from gliofed.client.round.audit_command import audit_command as at_site
from gliofed.server.round.audit_command import audit_command as at_server
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.audit_command import NoLogError
from gliofed.shared.chain import digest, head_file, line_hash, link, redact
from gliofed.shared.files import write_json
from gliofed.simulation.simulate import simulate


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three sites."""
    out = tmp_path_factory.mktemp("run") / "out"
    simulate(composed("sites=3", f"out={out}"))
    return out


def events(folder: Path) -> list[dict[str, Any]]:
    return read_audit(audit_file(folder)).events()


def replies(run: Path) -> list[dict[str, Any]]:
    return [line for line in events(run) if line["event"] == "reply"]


def copied(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the copy of a run's log for a site."""
    capsys.readouterr()
    assert at_server(["copy", str(run), "--site", name]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_copy_for_a_site_names_no_other(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the site's own lines, verifies to the same head, and agrees with the site's log as the whole one does."""
    lines = copied(finished, "site-1", capsys)
    whole = audit_file(finished).read_text().splitlines()
    assert len(lines) == len(whole)
    own = [line for line in whole if '"site": "site-1"' in line]
    assert len(own) > 6 and set(own) <= set(lines)
    text, others = "\n".join(lines), [line for line in replies(finished) if line["site"] != "site-1"]
    told = {str(line[key]) for line in others for key in ("site", "head", "sha256") if line["bytes"]}
    assert len(told) > 4 and not [word for word in told if word in text]
    assert "site-2" in audit_file(finished).read_text()
    (tmp_path / "copy.jsonl").write_text(text + "\n")
    assert at_site(["verify", str(finished / "sites/site-1"), "--server", str(tmp_path / "copy.jsonl")]) == 0
    said = capsys.readouterr().out
    assert at_server(["verify", str(tmp_path / "copy.jsonl")]) == 0
    assert "copy.jsonl: unsigned replies, which prove nothing to anybody else: " in capsys.readouterr().out
    hidden = sum('"rest": "' in line for line in lines)
    assert f"{len(lines)} lines hold, {hidden} of them redacted; head {read_audit(audit_file(finished)).head}" in said
    own_replies = [line for line in replies(finished) if line["site"] == "site-1"]
    assert f"site-1: {len(own_replies)} replies and {len(own_replies)} requests agree" in said


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda lines, own: [redact(line) if line == own[-1] else line for line in lines], "lacks, and it went on"),
        (lambda lines, own: [line for line in lines if line != own[2]], "does not follow the one before"),
        (lambda lines, own: [line.replace('"status": "ok"', '"status": "no"') for line in lines], "does not follow"),
    ],
)
def test_a_copy_that_hides_or_changes_something(
    finished: Path,
    tmp_path: Path,
    spoil: Callable[[list[str], list[str]], list[str]],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line of the site itself that is redacted is missing there."""
    lines = copied(finished, "site-1", capsys)
    spoilt = spoil(lines, [line for line in lines if '"event": "reply"' in line])
    (tmp_path / "copy.jsonl").write_text("\n".join(spoilt) + "\n")
    assert at_site(["verify", str(finished / "sites/site-1"), "--server", str(tmp_path / "copy.jsonl")]) == 1
    assert sentence in capsys.readouterr().err


def test_no_copy_of_what_could_be_guessed(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of earlier versions have no salt: whoever knows the sites' names finds the one that has the hash."""
    run = Path(shutil.copytree(finished, tmp_path / "out"))
    file, lines, before = audit_file(run), [], [digest("")]
    for event in events(run):
        lines.append(link({key: event[key] for key in event.keys() - {"before", "salt"}}, before[-1]))
        before.append(line_hash(lines[-1]))
    file.write_text("".join(f"{line}\n" for line in lines))
    write_json(head_file(file), {"lines": len(lines), "hash": before[-1]})
    assert at_server(["verify", str(run)]) == 0
    assert at_server(["copy", str(run), "--site", "site-1"]) == 1
    number = next(n for n, event in enumerate(events(run), 1) if event.get("site") == "site-2")
    assert f"line {number} is of an earlier version and has no salt" in capsys.readouterr().err


def test_a_copy_for_nobody(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(NoLogError, match="no line of site-9; give the site's name"):
        at_server(["copy", str(finished), "--site", "site-9"])
    with pytest.raises(NoLogError):
        at_server(["copy", str(tmp_path), "--site", "site-1"])
