"""gliofed-server admit and expel: only the hospital that holds the key, of this federation, and each key once."""

import base64
import json
import os
import pwd
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.cli.supernode.register import try_load_public_key
from small_federation import TEXT, altered, provisioned, rewrite, status
from telephone import admit_told, told

from gliofed.client.link.join import join
from gliofed.server.cli import main
from gliofed.server.provisioning.admit import TOLD, admit, admitted_keys, expel, read_records
from gliofed.shared import keys
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.kit import read_kit
from gliofed.shared.parse import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return provisioned(tmp_path_factory.mktemp("made"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


def asked(folder: Path, into: Path, site: str = "hospital-a") -> Path:
    """The request of a hospital that joins."""
    join(folder / f"kits/{site}.zip", into, patients=100)
    return into / f"{site}.request.json"


def record(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "sites/hospital-a/site.json").read_text()))


def admitted(folder: Path) -> list[str]:
    """The sites that may connect, where nothing is damaged; else what is wrong, as ConfigError."""
    records, damaged = read_records(folder)
    keys, wrong = admitted_keys(folder, records)
    if faults := damaged | wrong:
        raise ConfigError("; ".join(faults.values()))
    return list(keys)


def test_admit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asked(folder, tmp_path / "a")
    for words in (
        "hospital-a states at most 100 patients, and joined with the kit ",
        "admitted before",
    ):
        words_of = ("admit", request, "--folder", folder, "--fingerprint", told(request))
        assert status(monkeypatch, main, *words_of) == 0
        said = capsys.readouterr().out
        assert words in said
    assert admitted(folder) == ["hospital-a"]
    # Flower's own reader takes the key, and it is the one that stays at the hospital.
    assert try_load_public_key(folder / "sites/hospital-a/key.pub") == try_load_public_key(tmp_path / "a/site.key.pub")


def test_a_certificate_that_ends_is_announced(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "server/link.crt").write_text("damaged")
    request = asked(folder, tmp_path / "a")
    assert status(monkeypatch, main, "admit", request, "--folder", folder, "--fingerprint", told(request)) == 0
    assert "link.crt: no certificate; run gliofed-server renew" in capsys.readouterr().out


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


def test_a_key_is_one_site_s(folder: Path, tmp_path: Path) -> None:
    """Flower knows a node by its key: two sites with one key would be one."""
    request = asked(folder, tmp_path / "a")
    admit_told(request, folder)
    (folder / "sites/hospital-a").rename(folder / "sites/hospital-b")
    with pytest.raises(ConfigError, match="this key is hospital-b's"):
        admit_told(request, folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "hospital-b"}, "altered"),
        ({"patients": 10**6}, "altered"),
        ({"kit_sha256": "0" * 64}, "altered"),
        ({"kit_sha256": None}, "altered"),
        ({"patients": None}, "altered"),
        ({"patients": 10**9}, "patients=1000000000"),
        ({"made": "2020-01-01T00:00:00+00:00"}, "altered"),
        ({"signature": ""}, "altered"),
        ({"signature": "no base64"}, "altered"),
        ({"signature": "é"}, "altered"),
        ({"public_key": "ssh-ed25519 AAAA"}, "no public key"),
        ({"public_key": "two\nlines"}, "no public key"),
        ({"site": "../b"}, "site=../b"),
        ({"more": 1}, "more"),
        ({"made": "x" * 2**16}, "too large"),
    ],
)
def test_altered_request(folder: Path, tmp_path: Path, change: dict[str, object], words: str) -> None:
    request = asked(folder, tmp_path / "a")
    with pytest.raises(ConfigError, match=words):
        admit_told(rewrite(request, **change), folder)
    assert not (folder / "sites").exists()


def older_version(request: Path, key: Path) -> Path:
    """The request as a version before numbers were agreed wrote and signed it."""
    made = json.loads(request.read_text())
    rest = {name: value for name, value in made.items() if name not in ("patients", "kit_sha256", "signature")}
    signed = b"gliofed join request\n" + json.dumps(rest, sort_keys=True).encode()
    own = load_ssh_private_key(key.read_bytes(), None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    signature = base64.b64encode(own.sign(signed, ec.ECDSA(SHA384()))).decode()
    request.write_text(json.dumps({**rest, "signature": signature}))
    return request


def test_a_number_of_patients_is_agreed(folder: Path, tmp_path: Path) -> None:
    """What the hospital states holds, unless another number is agreed; that stays until a third one is."""
    request = asked(folder, tmp_path / "a")
    assert "and at most 100 patients" in admit_told(request, folder)[0]
    assert record(folder)["patients"] == 100
    assert "now with at most 40 patients" in admit_told(request, folder, patients=40)[0]
    assert "now with at most 40 patients" in admit_told(request, folder)[0]
    assert record(folder)["patients"] == 40
    for wrong in (0, -1, 10**9):
        with pytest.raises(ConfigError, match=f"--patients {wrong}: must be from 1"):
            admit_told(request, folder, patients=wrong)
    second = asked(folder, tmp_path / "second")
    said = admit_told(second, folder, replaces=True)  # whoever made the new key stated a number of his own
    assert record(folder)["patients"] == 40 and "--patients 100 takes that" in said[1]


def test_a_request_without_a_number_needs_one(folder: Path, tmp_path: Path) -> None:
    request = older_version(asked(folder, tmp_path / "a"), tmp_path / "a/site.key")
    with pytest.raises(ConfigError, match=r"without a number of patients; agree on one by telephone.*--patients N"):
        admit_told(request, folder)
    assert not (folder / "sites").exists()
    admit_told(request, folder, patients=70)
    assert record(folder)["patients"] == 70


def test_a_hospital_that_joined_with_an_altered_kit_is_not_admitted(folder: Path, tmp_path: Path) -> None:
    """Its settings may be another's wish; the key that is compared by telephone has signed which kit it was."""
    join(altered(folder / "kits/hospital-a.zip", tmp_path / "wrong.zip", weaker), tmp_path / "a", patients=100)
    with pytest.raises(ConfigError, match=r"it joined with a kit that was not made here, .*it was altered on its way"):
        admit_told(tmp_path / "a/hospital-a.request.json", folder)
    assert not (folder / "sites").exists()


def weaker(files: dict[str, bytes]) -> None:
    files["site.yaml"] = files["site.yaml"].replace(b"metrics: unless_private", b"metrics: always")


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


def test_a_thief_of_the_request_cannot_sign(folder: Path, tmp_path: Path) -> None:
    """Another's public key with one's own signature: the proof of possession fails."""
    mine, theirs = (json.loads(asked(folder, tmp_path / name).read_text()) for name in ("mine", "theirs"))
    request = tmp_path / "request.json"
    request.write_text(json.dumps(mine | {"public_key": theirs["public_key"]}))
    with pytest.raises(ConfigError, match="altered"):
        admit(request, folder, "any")


def test_other_curve(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gliofed.client.link.join.new_key", lambda: ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ConfigError, match="must be EC P-384"):
        admit(asked(folder, tmp_path / "a"), folder, "any")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("name: study", "name: other"), "for the federation other"),
        (TEXT, "another authority"),
    ],
)
def test_other_federation(folder: Path, tmp_path: Path, text: str, words: str) -> None:
    """A name alone proves nothing: anybody may call a federation study."""
    other = provisioned(tmp_path / "elsewhere", text)
    with pytest.raises(ConfigError, match=words):
        request = asked(other, tmp_path / "a")
        admit_told(request, folder)


def test_unlisted_site(folder: Path, tmp_path: Path) -> None:
    request = asked(folder, tmp_path / "a")
    (folder / "federation.yaml").write_text(TEXT.replace("hospital-a, ", ""))
    with pytest.raises(ConfigError, match=r"hospital-a is not in federation\.yaml; its sites are hospital-b"):
        admit_told(request, folder)


def test_killed_between_record_and_key(folder: Path, tmp_path: Path) -> None:
    """Admitting again mends it; until then no key is given out."""
    first, second = asked(folder, tmp_path / "first"), asked(folder, tmp_path / "second")
    admit_told(first, folder)
    old = (folder / "sites/hospital-a/key.pub").read_bytes()
    admit_told(second, folder, replaces=True)
    (folder / "sites/hospital-a/key.pub").write_bytes(old)
    with pytest.raises(ConfigError, match="admit the site's request again"):
        admitted(folder)
    admit_told(second, folder)
    assert admitted(folder) == ["hospital-a"]


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


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("SHA256:AAAAAAAAAAAA", "has not the fingerprint"),
        ("{}X", "has not the fingerprint"),
        ("SHA256:{:.7}", "give 12 characters"),
        ("", "give 12 characters"),
        ("SHA256:", "give 12 characters"),
    ],
)
def test_another_fingerprint_is_not_admitted(folder: Path, tmp_path: Path, typed: str, why: str) -> None:
    """A key that is admitted connects within two seconds where `start` runs: the comparison comes first."""
    request = asked(folder, tmp_path / "a")
    with pytest.raises(ConfigError, match=why):
        admit(request, folder, typed.format(told(request)))
    assert not (folder / "sites").exists()


@pytest.mark.parametrize("form", ["{}", "SHA256:{}", " {} ", "SHA256: {}"])
def test_the_fingerprints_beginning_will_do(folder: Path, tmp_path: Path, form: str) -> None:
    request = asked(folder, tmp_path / "a")
    admit(request, folder, form.format(told(request)[7 : 7 + TOLD]))
    assert admitted(folder) == ["hospital-a"]


def test_the_person_is_asked_and_not_shown_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever sees it agrees to it without a call."""
    request = asked(folder, tmp_path / "a")
    capsys.readouterr()
    words = ("admit", request, "--folder", folder)
    assert status(monkeypatch, main, *words) == 2
    assert "nobody to ask" in capsys.readouterr().err
    assert status(monkeypatch, main, "admit", tmp_path / "none.json", "--folder", folder) == 2
    assert "none.json: No such file" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: "wrong-wrong-wrong")
    assert status(monkeypatch, main, *words) == 2
    shown = capsys.readouterr()
    assert told(request)[7:15] not in shown.out + shown.err
    assert not (folder / "sites").exists()
    monkeypatch.setattr("builtins.input", lambda prompt: told(request)[7:])
    assert status(monkeypatch, main, *words) == 0


def test_wrong_use(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asked(folder, tmp_path / "a")
    for words, said in (
        ((tmp_path / "none.json", "--folder", folder), "No such file"),
        ((folder / "kits/hospital-a.zip", "--folder", folder), "too large"),
        ((request, "--folder", tmp_path), "no federation's folder"),
    ):
        assert status(monkeypatch, main, "admit", *words, "--fingerprint", told(request)) == 2
        assert said in capsys.readouterr().err
    rewrite(request, site="\x1b[2K")
    assert status(monkeypatch, main, "admit", request, "--folder", folder, "--fingerprint", told(request)) == 2
    assert "site=\\x1b[2K" in capsys.readouterr().err  # no command for the terminal
    request = asked(folder, tmp_path / "b")
    (folder / "sites/hospital-a").mkdir(parents=True)
    (folder / "sites/hospital-a/site.json").write_text("{}")
    assert status(monkeypatch, main, "admit", request, "--folder", folder, "--fingerprint", told(request)) == 2
    assert "site.json: fingerprint: missing" in capsys.readouterr().err
    monkeypatch.setattr("gliofed.server.provisioning.admit.write_bytes", no_permission)
    (folder / "sites/hospital-a/site.json").unlink()
    assert status(monkeypatch, main, "admit", request, "--folder", folder, "--fingerprint", told(request)) == 2
    assert "key.pub: Permission denied" in capsys.readouterr().err


def no_permission(path: Path, content: bytes) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_kit_names_the_authority(made: Path) -> None:
    kit, files, _ = read_kit(made / "kits/hospital-a.zip")
    assert kit.ca_sha256 == keys.certificate_sha256(keys.read_authority((made / "ca/ca.crt").read_bytes(), "ca"))
    assert files["ca.crt"] == (made / "ca/ca.crt").read_bytes()
