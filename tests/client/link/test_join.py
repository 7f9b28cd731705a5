"""gliofed-client join: a key that stays and is never lost, and no kit that somebody altered."""

import json
import re
import shlex
import shutil
import stat
import subprocess
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication
from small_federation import altered, provisioned, status

from gliofed.client.cli import main
from gliofed.client.link.join import join
from gliofed.client.link.site_file import own_folder
from gliofed.shared.archive import write_zip
from gliofed.shared.join_request import read_request
from gliofed.shared.keys import fingerprint, pairs, public_line
from gliofed.shared.kit import FILES, kit_sha256
from gliofed.shared.parse import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return provisioned(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def kit(made: Path) -> Path:
    return made / "kits/hospital-a.zip"


def test_join(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Flower's SuperNode is the oracle of the key: it reads the file by itself."""
    monkeypatch.chdir(tmp_path)
    assert status(monkeypatch, main, "join", kit, "--patients", 250) == 0
    folder = tmp_path / "study-hospital-a"
    own = {"site.key", "site.key.pub", "hospital-a.request.json"}
    assert {path.name for path in folder.iterdir()} == FILES | own
    assert stat.S_IMODE((folder / "site.key").stat().st_mode) == 0o600
    keys = _try_setup_client_authentication(
        Namespace(auth_supernode_private_key=str(folder / "site.key"), auth_supernode_public_key=None)
    )
    assert keys is not None
    assert public_line(keys[1]) == json.loads((folder / "hospital-a.request.json").read_text())["public_key"]
    said = capsys.readouterr().out
    assert fingerprint(keys[1]) in said and "its patients, at most    250\n" in said
    request, _ = read_request(folder / "hospital-a.request.json")
    assert (request.patients, request.kit_sha256) == (250, kit_sha256(kit.read_bytes()))
    assert f"the kit                  {pairs(kit_sha256(kit.read_bytes()))}\n" in said


def test_what_the_readme_says_can_be_pasted(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It named the folder that join makes without --into."""
    place = tmp_path / "our study"
    assert status(monkeypatch, main, "join", kit, "--patients", 250, "--into", place) == 0
    (there,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  cd "))
    monkeypatch.chdir(shlex.split(there)[1])
    text = Path("README.md").read_text()
    assert "`hospital-a.request.json`" in text and Path("hospital-a.request.json").exists()
    monkeypatch.setattr("gliofed.client.link.start.start", lambda folder: int(own_folder(folder) != place))
    commands = re.findall(r"gliofed-client ((?:approve|start)[^`\n]*)", text)
    for command in commands:  # nobody is there to ask whether the code is approved, which is 1
        words = command.replace("FILE.fab", "code.fab").replace("DIR", str(tmp_path / "files")).split()
        assert status(monkeypatch, main, *words) == (1 if words[0] == "approve" and "--unpack" not in words else 0)
    assert len(commands) == 4


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_fingerprint_is_ssh_keygen_s(kit: Path, tmp_path: Path) -> None:
    said = "\n".join(join(kit, tmp_path / "a", patients=100))
    for name in ("site.key", "site.key.pub"):
        words = ["ssh-keygen", "-lf", str(tmp_path / "a" / name)]
        bits, mark, comment, kind = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        assert mark in said and (bits, comment, kind) == ("384", "hospital-a@study", "(ECDSA)")


def test_a_key_is_never_written_over(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    join(kit, tmp_path / "a", patients=100)
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert status(monkeypatch, main, "join", kit, "--patients", 1, "--into", tmp_path / "a") == 2
    assert "joined already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_folder_in_use(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/thesis.txt").write_text("mine")
    for place in ("a", "a/thesis.txt"):
        with pytest.raises(ConfigError, match="not an empty folder"):
            join(kit, tmp_path / place, patients=100)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    join(kit, tmp_path / "empty", patients=100)


def test_nothing_is_left_of_a_join_that_fails(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gliofed.client.link.join.sign_request", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        join(kit, tmp_path / "in/a", patients=100)
    assert list((tmp_path / "in").iterdir()) == []


ALTERED: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "code": (lambda files: files.update({"code.fab": b"evil"}), r"code\.fab is not the one"),
    "key inside": (lambda files: files.update({"site.key": b"evil"}), r"look at site\.key"),
    "traversal": (lambda files: files.update({"../site.key": b"evil"}), "does not belong"),
    "no certificate": (lambda files: files.update({"ca.crt": b"evil"}), "no certificate of an authority"),
    "file missing": (lambda files: files.pop("README.md"), r"look at README\.md"),
    "another's folder": (lambda files: edit(files, b"hospital-a", b"../../etc"), r"kit\.json: site="),
    "no address": (lambda files: edit(files, b"localhost:8443", b"localhost"), "address=localhost"),
    "not JSON": (lambda files: files.update({"kit.json": b"\xff"}), r"kit\.json"),
}


def edit(files: dict[str, bytes], old: bytes, new: bytes) -> None:
    files["kit.json"] = files["kit.json"].replace(old, new)


@pytest.mark.parametrize("name", ALTERED)
def test_altered_kit(kit: Path, tmp_path: Path, name: str) -> None:
    change, words = ALTERED[name]
    wrong = altered(kit, tmp_path / "wrong.zip", change)
    with pytest.raises(ConfigError, match=words):
        join(wrong, tmp_path / "a/b", patients=100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.zip"]


@pytest.mark.parametrize("name", ["site.yaml", "README.md", "ca.crt", "code.fab", "kit.json"])
def test_one_hash_covers_all_of_a_kit(kit: Path, tmp_path: Path, name: str) -> None:
    """The authority's fingerprint did not cover the settings and the instructions."""
    honest = pairs(kit_sha256(kit.read_bytes()))
    wrong = altered(kit, tmp_path / "wrong.zip", lambda files: files.update({name: files[name] + b"\n"}))
    with pytest.raises(ConfigError):  # by its hash, or since its parts do not fit
        join(wrong, tmp_path / "a", patients=100, kit_hash=honest)
    assert not (tmp_path / "a").exists()
    if name in ("site.yaml", "README.md"):
        with pytest.raises(ConfigError, match=r"its hash is .* and not what the aggregator read: it was altered"):
            join(wrong, tmp_path / "a", patients=100, kit_hash=honest)
    join(kit, tmp_path / "a", patients=100, kit_hash=honest)


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (lambda sha256: pairs(sha256)[:29], None),
        (lambda sha256: sha256[:20], None),
        (lambda sha256: f" {sha256} ", None),
        (lambda sha256: sha256[:18], "give the first 20 digits or more"),
        (lambda sha256: "", "give the first 20 digits or more"),
        (lambda sha256: "0" * 20, "not what the aggregator read"),
        (lambda sha256: sha256 + "0", "not what the aggregator read"),
    ],
)
def test_the_hash_by_telephone(
    kit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: Callable[[str], str],
    why: str | None,
) -> None:
    told = form(kit_sha256(kit.read_bytes()))
    words = (kit, "--patients", 100, "--hash", told, "--into", tmp_path / "a")
    assert status(monkeypatch, main, "join", *words) == (2 if why else 0)
    assert (why or "") in capsys.readouterr().err
    assert (tmp_path / "a").exists() == (why is None)


def test_certificate_of_a_server_is_no_authority(made: Path, kit: Path, tmp_path: Path) -> None:
    server = (made / "server/server.crt").read_bytes()
    wrong = altered(kit, tmp_path / "wrong.zip", lambda files: files.update({"ca.crt": server}))
    with pytest.raises(ConfigError, match="no certificate of an authority"):
        join(wrong, tmp_path / "a", patients=100)


def test_authority_that_ended(kit: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="its authority ended on"):
        join(kit, tmp_path / "a", patients=100, now=datetime.now(UTC) + timedelta(days=3651))
    assert not (tmp_path / "a").exists()


def test_wrong_use(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no zip")
    (tmp_path / "other.zip").write_bytes(write_zip({"a": b""}))
    with (tmp_path / "huge.zip").open("wb") as file:
        file.truncate(2**25)
    for words, said in (
        ((tmp_path / "none.zip",), "No such file"),
        ((tmp_path,), "Is a directory"),
        ((tmp_path / "text",), "no zip archive"),
        ((tmp_path / "other.zip",), "not a kit"),
        ((tmp_path / "huge.zip",), "too large"),
        ((kit, "--into", tmp_path / "text/a"), "File exists"),
        ((), "KIT.zip"),
    ):
        assert status(monkeypatch, main, "join", *words, "--patients", 100) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "--patients: must be given: the most patients"),
        (("--patients", 0), "--patients 0: must be from 1 to"),
        (("--patients", 10**9), "--patients 1000000000: must be from 1 to"),
    ],
)
def test_a_number_of_patients_must_be_stated(
    kit: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[object, ...],
    why: str,
) -> None:
    assert status(monkeypatch, main, "join", kit, "--into", tmp_path / "a", *words) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
