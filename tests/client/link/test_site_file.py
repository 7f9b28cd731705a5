"""site.yaml: every fault is a sentence that names the file and the key."""

from pathlib import Path

import pytest

from client.link.site_file import read_site
from shared.parse import ConfigError

TEXT = "name: a\nroot: scans\nlabels: msd\n"


def test_paths_are_relative_to_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service starts in another folder than the person who wrote them."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/site.yaml").write_text(TEXT + "policy: {max_epsilon: 2}\npatients: [p1, p2]\n")
    monkeypatch.chdir(tmp_path)
    site = read_site(Path("a"))
    assert (site.root, site.work) == (str(tmp_path / "a/scans"), str(tmp_path / "a/work"))
    assert site.policy.max_epsilon == 2 and site.patients == ("p1", "p2")
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "a/site.yaml").write_text(TEXT.replace("scans", "/mnt/scans") + "work: ~/work\n")
    site = read_site(Path("a"))
    assert (site.root, site.work) == ("/mnt/scans", "/home/somebody/work")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("scans", "???"), "root: still"),
        (TEXT.replace("root: scans\n", ""), "root: missing"),
        (TEXT + "rot: x\n", "rot: no such key"),
        (TEXT + "root: twice\n", "not YAML"),
        (TEXT + "policy: {max_steps: -1}\n", "policy.max_steps=-1"),
        (TEXT + "policy:\n", "policy=None"),
        (TEXT + "policy:\n  min_patients: ???\n", "policy.min_patients: still"),
        (TEXT + "check: {spacing: [3, 1]}\n", "check.spacing=3.0,1.0"),
        (TEXT.replace("scans", "[scans]"), "root="),
        (TEXT.replace("name: a", "name: ../a"), "name=../a"),
        (TEXT + "work: ~nobody-of-that-name/x\n1: 2\n", "1: no such key"),
        (TEXT + "x: !!python/object/apply:os.getcwd []\n", "not YAML"),
        ("\xff".encode("latin-1"), "not YAML"),
        (b"a: \x00", "not YAML"),
        ("", "root: missing"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        read_site(tmp_path)
    assert str(error.value).startswith(str(path)) and words in str(error.value) and "\n" not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no site\.yaml there"):
        read_site(tmp_path)
    (tmp_path / "site.yaml").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        read_site(tmp_path)
