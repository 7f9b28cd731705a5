"""gliofed-client approve: nothing is approved that was not shown, and nobody approves by accident."""

import hashlib
import json
import os
import pwd
import sys
from pathlib import Path

import pytest
from small_federation import provisioned, status

from gliofed.client.cli import main
from gliofed.client.link.approve import approve, approved
from gliofed.client.link.join import join
from gliofed.shared.archive import read_zip, write_zip
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.code import MANIFEST, files_of
from gliofed.shared.parse import ConfigError


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return provisioned(tmp_path_factory.mktemp("made")) / "kits/hospital-a.zip"


@pytest.fixture
def folder(kit: Path, tmp_path: Path) -> Path:
    join(kit, tmp_path / "a", patients=100)
    return tmp_path / "a"


def changed(folder: Path, to: str, changes: dict[str, bytes | None]) -> tuple[Path, str]:
    """The folder's code with other files, as a bundle that Flower would install, and its hash."""
    files = read_zip((folder / "code.fab").read_bytes(), "code", 2**26)
    files = {name: content for name, content in {**files, **changes}.items() if content is not None}
    files.pop(MANIFEST)
    lines = (f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}" for name, content in files.items())
    bundle = write_zip({MANIFEST: "\n".join(lines).encode(), **files})
    (folder / to).write_bytes(bundle)
    return folder / to, hashlib.sha256(bundle).hexdigest()


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A person at a terminal, who types this."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: text)


def test_first_code(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is compared to what is installed; once approved, there is nothing to ask."""
    digest = hashlib.sha256((folder / "code.fab").read_bytes()).hexdigest()
    answer(monkeypatch, f" {digest[:8].upper()} ")
    assert status(monkeypatch, main, "approve", folder) == 0
    said = capsys.readouterr().out
    lines = len((Path(main.__code__.co_filename)).read_text().splitlines())
    for words in (f"{lines:6d} lines  gliofed/client/cli.py", "0 differ from the code that is installed here", digest):
        assert words in said
    assert f"approve {folder} --unpack DIR" in said  # no line of it was shown
    assert [each.sha256 for each in approved(folder)] == [digest]
    assert (folder / f"approved/{digest}.fab").read_bytes() == (folder / "code.fab").read_bytes()
    before = (folder / "approved.json").read_bytes()
    answer(monkeypatch, "")
    assert approve(folder) == 0
    assert "approved before" in capsys.readouterr().out
    assert (folder / "approved.json").read_bytes() == before


def test_the_difference_to_the_last_approved(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of change is seen, one in a line's end as well."""
    client = read_zip((folder / "code.fab").read_bytes(), "code", 2**26)["gliofed/client/round/job.py"]
    assert approve(folder, sha256=hashlib.sha256((folder / "code.fab").read_bytes()).hexdigest()) == 0
    change = {
        "torch/__init__.py": b"steal()\x1b[2K\n",  # a terminal's command would hide the line
        "gliofed/client/round/job.py": client.replace(b"\n", b"\r\n", 1),
        "gliofed/client/round/outbox.py": None,
    }
    new, digest = changed(folder, "new.fab", change)
    capsys.readouterr()
    assert approve(folder, new, digest) == 0
    said = capsys.readouterr().out
    assert "3 differ from the code approved on" in said
    assert "+steal()\\x1b[2K" in said and "\x1b" not in said
    assert "--- before/gliofed/client/round/outbox.py" in said and "\\r" in said
    assert [each.sha256 for each in approved(folder)][1] == digest


@pytest.mark.parametrize("typed", ["", "yes", "0" * 8, "short"])
def test_what_is_not_the_hash_is_a_no(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    digest = hashlib.sha256((folder / "code.fab").read_bytes()).hexdigest()
    answer(monkeypatch, digest[:7] if typed == "short" else typed)
    assert status(monkeypatch, main, "approve", folder) == 1
    assert "not approved: type the first 8 characters of the hash" in capsys.readouterr().err
    assert not (folder / "approved.json").exists() and not (folder / "approved").exists()


def test_no_terminal_needs_the_whole_hash(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256((folder / "code.fab").read_bytes()).hexdigest()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    for words, said in (
        ((), "--hash"),
        (("--hash", digest[:8]), "not the hash"),
        (("--hash", "0" * 64), "not the hash"),
    ):
        assert status(monkeypatch, main, "approve", folder, *words) == 1
        assert said in capsys.readouterr().err
    assert approved(folder) == ()
    assert status(monkeypatch, main, "approve", folder, "--hash", digest.upper()) == 0


def test_code_that_nobody_can_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compiled code would run, and no line of it be shown."""
    compiled, digest = changed(folder, "new.fab", {"client/__init__.pyc": b"\xa7\x0d\x0d\x0a"})
    assert approve(folder, compiled, digest) == 1
    assert "client/__init__.pyc is not text" in capsys.readouterr().err
    (folder / "new.fab").write_bytes(b"no bundle")
    assert approve(folder, compiled, hashlib.sha256(b"no bundle").hexdigest()) == 1
    assert approved(folder) == ()


def test_altered_records(folder: Path) -> None:
    """Neither a damaged list nor another bundle under an approved name is taken."""
    digest = hashlib.sha256((folder / "code.fab").read_bytes()).hexdigest()
    approve(folder, sha256=digest)
    kept = folder / f"approved/{digest}.fab"
    kept.write_bytes(kept.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="not the code that was approved"):
        approve(folder)
    for text in ("", "{}", "[1]", "[]}", json.dumps([{"sha256": "x", "time": "", "files": 1}])):
        (folder / "approved.json").write_text(text)
        with pytest.raises(ConfigError, match=r"approved\.json: "):
            approved(folder)


def test_wrong_use(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ((folder / "none",), "no hospital's folder"),
        ((folder, "--code", folder / "none.fab"), "No such file"),
        ((folder, "--hsh", "1"), "unrecognized"),
    ):
        assert status(monkeypatch, main, "approve", *words) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "head",
    ["# coding: utf-7\n", "\n# -*- coding: raw_unicode_escape -*-\n", "\r# coding: utf-7\r", "#\r\n#coding=utf-7\r\n"],
)
def test_what_python_reads_otherwise_than_it_is_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    """Python itself is the oracle: a comment in one coding is a line of code in another."""
    hidden = "\\u000aharm = True" if "escape" in head else "+AAo-harm +AD0- True"
    source = f"{head}harm = False\n# {hidden}\n".encode()
    exec(compile(source, "odd.py", "exec"), ran := {"harm": None})
    assert ran["harm"] is True
    path, digest = changed(folder, "odd.fab", {"client/odd.py": source})
    assert approve(folder, path, digest) == 1
    assert "client/odd.py is not text" in capsys.readouterr().err


def test_the_code_to_read(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As Python unpacks it; a folder that is there is left as it is."""
    to = folder / "to-read"
    assert status(monkeypatch, main, "approve", folder, "--unpack", to) == 0
    there = {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}
    assert there == files_of((folder / "code.fab").read_bytes())
    assert "nothing was approved" in capsys.readouterr().out and not (folder / "approved.json").exists()
    assert status(monkeypatch, main, "approve", folder, "--unpack", to) == 2
    assert "there already" in capsys.readouterr().err


def test_an_approval_is_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else code with a fault that the next version mends could be asked for again, for ever."""
    digest = hashlib.sha256((folder / "code.fab").read_bytes()).hexdigest()
    approve(folder, sha256=digest)
    new, other = changed(folder, "new.fab", {"client/more.py": b""})
    approve(folder, new, other)
    for wrong in (digest[:7], "f" * 64):
        assert status(monkeypatch, main, "approve", folder, "--withdraw", wrong) == 2
        assert f"approved: {digest[:8]}, {other[:8]}" in capsys.readouterr().err
    assert status(monkeypatch, main, "approve", folder, "--withdraw", digest[:8].upper()) == 0
    assert [each.sha256 for each in approved(folder)] == [other]
    acts = [("code_approved", digest), ("code_approved", other), ("approval_withdrawn", digest)]
    events = read_audit(audit_file(folder / "work")).events()
    assert [(event["event"], event["sha256"]) for event in events] == acts
    assert {event["user"] for event in events} == {pwd.getpwuid(os.getuid()).pw_name}


def test_what_cannot_be_noted_is_not_approved_but_withdrawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its log is where site.yaml says, also before the rest of that is filled in."""
    (folder / "site.yaml").write_text((folder / "site.yaml").read_text().replace("work: work", "work: ../elsewhere"))
    digest = hashlib.sha256((folder / "code.fab").read_bytes()).hexdigest()
    approve(folder, sha256=digest)
    head = audit_file(folder.parent / "elsewhere").with_name("head.json")
    head.write_text("{half")
    new, other = changed(folder, "new.fab", {"client/more.py": b""})
    assert status(monkeypatch, main, "approve", folder, "--code", new, "--hash", other) == 2
    assert "elsewhere/audit/head.json" in capsys.readouterr().err
    assert [each.sha256 for each in approved(folder)] == [digest]
    assert status(monkeypatch, main, "approve", folder, "--withdraw", digest[:8]) == 2
    shown = capsys.readouterr()
    assert f"withdrawn: {digest}" in shown.out and "elsewhere/audit/head.json" in shown.err
    assert approved(folder) == ()
