"""gliofed-server admit: after a call, each key once, with a number of patients."""

from pathlib import Path

import pytest
from admission import admitted, asked, record
from flwr.cli.supernode.register import try_load_public_key
from small_federation import rewrite, status
from telephone import admit_told, told

from gliofed.server.cli import main
from gliofed.server.provisioning.admit import SHORTEST_FINGERPRINT, admit
from gliofed.shared.parse import ConfigError


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


def test_a_key_is_one_site_s(folder: Path, tmp_path: Path) -> None:
    """Flower knows a node by its key: two sites with one key would be one."""
    request = asked(folder, tmp_path / "a")
    admit_told(request, folder)
    (folder / "sites/hospital-a").rename(folder / "sites/hospital-b")
    with pytest.raises(ConfigError, match="this key is hospital-b's"):
        admit_told(request, folder)


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
    admit(request, folder, form.format(told(request)[7 : 7 + SHORTEST_FINGERPRINT]))
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
