"""gliofed-server provision: kits for the hospitals, and a folder that stays when it is done again."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from small_federation import NOW, TEXT, again, status
from tls_handshake import handshake

from gliofed.client.link.site_file import MIN_PATIENTS, read_site
from gliofed.server.cli import main
from gliofed.server.provisioning.admit import made_kits
from gliofed.server.provisioning.provision import provision, renew
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.keys import pairs
from gliofed.shared.kit import kit_sha256, read_kit
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import PolicyConfig, SiteConfig


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils are not installed")
def test_the_hash_of_a_kit_is_sha256sum_s(made: Path) -> None:
    said = again(made)
    for site in ("hospital-a", "hospital-b"):
        words = ["sha256sum", str(made / f"kits/{site}.zip")]
        shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0]
        assert f"kits/{site}.zip: kept; hash {pairs(shown)}" in said


def test_each_provisioning_is_noted_with_its_kits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who joined with an older kit is admitted, and not who joined with one that was altered."""
    old = kit_sha256((folder / "kits/hospital-a.zip").read_bytes())
    monkeypatch.setattr("gliofed.server.provisioning.provision.build_code", lambda: b"newer")
    again(folder)
    new = kit_sha256((folder / "kits/hospital-a.zip").read_bytes())
    first, *_, second = read_audit(audit_file(folder)).events()
    assert [each["event"] for each in (first, second)] == ["provisioned"] * 2
    assert second["user"] == pwd.getpwuid(os.getuid()).pw_name and second["time"].endswith("+00:00")
    assert second["code_sha256"] == hashlib.sha256(b"newer").hexdigest()
    assert first["kits"]["hospital-a"] == second["replaced"]["hospital-a"] == old != new
    assert made_kits(folder, "hospital-a") == {old, new}
    shutil.rmtree(folder / "audit")  # as of a federation that an older version made
    monkeypatch.setattr("gliofed.server.provisioning.provision.build_code", lambda: b"newest")
    again(folder)
    newest = kit_sha256((folder / "kits/hospital-a.zip").read_bytes())
    assert made_kits(folder, "hospital-a") == {new, newest}
    renew(folder)
    assert read_audit(audit_file(folder)).events()[-1]["event"] == "renewed"


def test_secrets_are_the_owners(made: Path) -> None:
    """And none is in a kit, nor its name."""
    keys = sorted(made.rglob("*.key"))
    assert [path.name for path in keys] == ["ca.key", "link.key", "server.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    for site in ("hospital-a", "hospital-b"):
        kit, files, _ = read_kit(made / f"kits/{site}.zip")
        assert (kit.site, kit.federation, kit.address) == (site, "study", "localhost:8443")
        assert not any(b"PRIVATE KEY" in content for content in files.values())


def test_again_keeps_everything(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != "audit"}
    said = again(folder, now=NOW + timedelta(days=700))
    assert {path: path.read_bytes() for path in before} == before
    assert sum("kept" in line for line in said) == 5 and not any("made" in line for line in said)


def test_again_with_new_names_and_sites(folder: Path) -> None:
    authority, kit = (folder / "ca/ca.crt").read_bytes(), (folder / "kits/hospital-a.zip").read_bytes()
    said = "\n".join(again(folder, TEXT.replace("10.1.2.3", "10.9.9.9").replace("-b]", "-b, new]")))
    assert "ca: kept" in said and "the names changed" in said and "link.crt: kept" in said
    assert "kits/new.zip: made" in said and "kits/hospital-a.zip: kept" in said
    assert ((folder / "ca/ca.crt").read_bytes(), (folder / "kits/hospital-a.zip").read_bytes()) == (authority, kit)
    handshake(folder / "server/server.crt", folder / "ca/ca.crt", "10.9.9.9")


def test_the_copy_inside_means_the_same_folder(folder: Path) -> None:
    """Else a second authority would come to be, in study/study."""
    assert "ca: kept" in provision(folder / "federation.yaml")
    assert not (folder / "study").exists()


def test_the_authoritys_key_may_be_elsewhere(folder: Path) -> None:
    """Only a new certificate needs it; new code, or a new site, does not."""
    (folder / "ca/ca.key").rename(folder / "taken.key")
    said = again(folder, TEXT.replace("-b]", "-b, new]"))
    assert "ca: kept" in said and any("kits/new.zip: made" in line for line in said)
    before = (folder / "server/server.crt").read_bytes()
    with pytest.raises(ConfigError, match=r"ca/ca\.key: needed for a new server\.crt"):
        renew(folder)
    assert (folder / "server/server.crt").read_bytes() == before
    (folder / "taken.key").rename(folder / "ca/ca.key")
    renew(folder)


def test_new_names_without_the_authoritys_key_leave_a_folder_that_starts(folder: Path) -> None:
    """Its file had the new names then, and its certificate the old ones: nothing ran until the key was fetched."""
    new = TEXT.replace("10.1.2.3", "10.9.9.9")
    (folder / "ca/ca.key").rename(folder / "taken.key")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"ca/ca\.key: needed for a new server\.crt"):
        again(folder, new)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "taken.key").rename(folder / "ca/ca.key")
    again(folder, new)
    assert "10.9.9.9" in (folder / "federation.yaml").read_text()


@pytest.mark.parametrize("into", ["new", "study"])
def test_killed_before_the_file_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch, into: str) -> None:
    """Provisioning again mends it, at the first time as well."""

    def die(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    new = folder.parent / into
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("gliofed.server.provisioning.provision.write_bytes", die)
        again(new, TEXT.replace("10.1.2.3", "10.9.9.9"))
    said = again(new, TEXT.replace("10.1.2.3", "10.9.9.9"))
    assert "ca: kept" in said
    handshake(new / "server/server.crt", new / "ca/ca.crt", "10.9.9.9")
    assert "10.9.9.9" in (new / "federation.yaml").read_text()


def test_joined_site_is_told_of_new_code(folder: Path) -> None:
    """Its kit is of no use to it any more, and the new code is not approved by itself."""
    (folder / "sites/hospital-a").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gliofed.server.provisioning.provision.build_code", lambda: b"newer")
        said = "\n".join(again(folder))
    assert "kits/hospital-a.zip: made anew; the site has joined: send it code.fab" in said
    assert "kits/hospital-b.zip: made; send it" in said
    assert (folder / "code.fab").read_bytes() == b"newer"


def test_damaged_kit_is_made_anew(folder: Path) -> None:
    before = (folder / "kits/hospital-a.zip").read_bytes()
    (folder / "kits/hospital-a.zip").write_bytes(before[:99])
    assert any(line.startswith("kits/hospital-a.zip: made; send it to the hospital; hash ") for line in again(folder))
    assert read_kit(folder / "kits/hospital-a.zip")[0].site == "hospital-a"


def test_site_yaml_says_every_setting_and_its_default(made: Path, tmp_path: Path) -> None:
    """A setting that the kit forgets would be one that no hospital knows of."""
    text = read_kit(made / "kits/hospital-a.zip")[1]["site.yaml"].decode()
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"site\.yaml: labels, root: still \?\?\?; fill in"):
        read_site(tmp_path)
    (tmp_path / "site.yaml").write_text(text.replace("root: ???", "root: scans").replace("labels: ???", "labels: msd"))
    paths = {"root": str(tmp_path / "scans"), "work": str(tmp_path / "work")}
    plain = SiteConfig(name="hospital-a", labels="msd", policy=PolicyConfig(min_patients=MIN_PATIENTS), **paths)
    assert read_site(tmp_path) == plain
    for name in (*asdict(plain), *asdict(plain.policy), *asdict(plain.check)):
        assert f"{name}:" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT + "port: 8443\n", ("port", "no such key")),
        (TEXT.replace("localhost:8443", "localhost"), ("address=localhost", "host:port")),
        (TEXT.replace(":8443", ":70000"), ("address=localhost:70000",)),
        (TEXT.replace("fl.example.org", "https://fl"), ("names=https://fl", "without a port")),
        (TEXT.replace("hospital-b", "../b"), ("sites.1=../b",)),
        (TEXT.replace("hospital-b", "Hospital-A"), ("sites=hospital-a,Hospital-A", "twice")),
        (TEXT.replace("[hospital-a, hospital-b]", "[]"), ("sites=[]: must have at least 1 item\n",)),
        (TEXT.replace("[hospital-a, hospital-b]", "[1]"), ("sites.0=1: must be a valid string\n",)),  # and no more
        (TEXT.replace("[hospital-a, hospital-b]", "charite"), ("sites=charite: must be a list, in brackets",)),
        (TEXT + "days: 30\n", ("days=30", "greater than 30")),
        (TEXT.replace("name: study", "name: ???"), ("name", "fill in")),
        (TEXT.replace("name: study\n", ""), ("name: missing",)),
        ("name: [", ("not YAML",)),
        ("- a", ("must be settings",)),
        ("3", ("must be settings",)),
        ("", ("address: missing",)),
        ("name: ${x}", ("line 1: ${...} is not replaced here",)),
        (TEXT + "listen: &a [*a]\n", ("line 5: & and * of YAML",)),
        (None, ("no such file",)),
    ],
)
def test_wrong_file(
    text: str | None,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "federation.yaml"
    if text is not None:
        path.write_text(text)
    assert status(monkeypatch, main, "provision", path) == 2
    said = capsys.readouterr().err
    assert said.startswith("gliofed-server: ") and said.count("\n") == 1
    for word in ("federation.yaml", *words):
        assert word in said
    assert sorted(tmp_path.iterdir()) == [path] * (text is not None)


def test_wrong_folders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(TEXT.replace("name: study", "name: other"))
    assert status(monkeypatch, main, "provision", other, "--into", folder) == 2
    assert "is the folder of study" in capsys.readouterr().err
    assert status(monkeypatch, main, "provision", other, "--into", other / "in") == 2  # a file is in the way
    assert "Not a directory" in capsys.readouterr().err
    assert status(monkeypatch, main, "renew", tmp_path) == 2
    assert "no federation's folder" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert status(monkeypatch, main, "renew", ".") == 2
    assert f"{tmp_path}: no federation's folder" in capsys.readouterr().err
