"""site.yaml: every fault is a sentence that names the file and the key."""

from pathlib import Path

import pytest

from gliofed.client.link.site_file import read_site
from gliofed.shared.parse import ConfigError
from gliofed.shared.site_config import PolicyConfig

TEXT = "name: a\nroot: scans\nlabels: msd\n"
# Nine times nine times ... nine: a gigabyte, from half a kilobyte.
BOMB = "".join(f"k{level}: &k{level} [{', '.join([f'*k{level - 1}' if level else 'x'] * 9)}]\n" for level in range(10))


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


def test_patients_may_be_named_as_dates_and_numbers(tmp_path: Path) -> None:
    """YAML has dates, which no setting is; ten thousand patients are read at once."""
    names = ["2020-01-01", *(f"BraTS-GLI-{number:05d}-000" for number in range(10_000))]
    (tmp_path / "site.yaml").write_text(f"{TEXT}patients: [{', '.join(names)}]\n")
    assert read_site(tmp_path).patients == tuple(names)


def test_a_hospital_that_says_nothing_asks_for_five_patients(tmp_path: Path) -> None:
    """What it says counts; where no hospital is asked, as in a simulation, one is enough."""
    for words, expected in (("", 5), ("policy: {max_steps: 9}\n", 5), ("policy: {min_patients: 2}\n", 2)):
        (tmp_path / "site.yaml").write_text(TEXT + words)
        assert read_site(tmp_path).policy.min_patients == expected
    assert read_site(tmp_path).policy.max_steps is None
    assert PolicyConfig().min_patients == 1


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
        (TEXT + "work: ~nobody-of-that-name/x\n", "~nobody-of-that-name/x: no such user on this machine"),
        (TEXT + 'work: "a\\0b"\n', "has a zero byte"),
        (TEXT.replace("scans", '"a\\0b"'), "has a zero byte"),
        (TEXT + "1: 2\n", "1: no such key"),
        (TEXT + "? 0x" + "f" * 4000 + "\n: 2\n", "site.yaml: 0xfff"),
        (TEXT + "policy:\n  ? 0x" + "f" * 4000 + "\n  : 2\n", "policy.0xfff"),
        (TEXT + "<<: {work: x}\n", "<<: no such key"),
        (TEXT + "policy: {<<: {max_steps: 1}, max_steps: 2}\n", "policy.<<: no such key"),
        (TEXT + "policy: {<<: {max_steps: 1}, <<: {}}\n", "<< is given twice"),
        (TEXT + "patients: [" + "[]," * 10**5 + "]\n", "line 4: more than 50000 values, groups and lists"),
        (TEXT + "patients: [" + "{}," * 10**5 + "]\n", "line 4: more than 50000 values, groups and lists"),
        (TEXT + "x: !!python/object/apply:os.getcwd []\n", "! of YAML"),
        ("\xff".encode("latin-1"), "not YAML"),
        (b"a: \x00", "not YAML"),
        ("", "root: missing"),
        ("- a\n", "must be settings"),
        (TEXT + "work: ${oc.env:HOME}\n", "line 4: ${...} is not replaced here"),
        (TEXT + 'work: "\\x24{oc.env:HOME}"\n', "line 4: ${...} is not replaced here"),
        (TEXT + "${oc.env:HOME}: 1\n", "line 4: ${...} is not replaced here"),
        (TEXT + "policy: {hours: '${oc.env:HOME}'}\n", "line 4: ${...} is not replaced here"),
        (TEXT + BOMB, "line 4: & and * of YAML"),
        (TEXT + "policy: &a {min_patients: 1}\ncheck: {<<: *a}\n", "line 4: & and * of YAML"),
        (TEXT + "work: !!str x\n", "line 4: ! of YAML"),
        (TEXT + "work: " + "[" * 10**6, "line 4: more than 8 groups and lists inside each other"),
        ("? " * 10**6, "larger than 1048576 bytes"),
        (TEXT + "work: '" + " " * 2**20 + "'\n", "larger than 1048576 bytes"),
        (TEXT + "work: '" + "x" * 10**6 + "'\n", "line 4: a value of more than 4096 characters"),
        (TEXT + "threads: 1" + ":1" * 10**5 + "\n", "line 4: a value of more than 4096 characters"),
        (TEXT + "patients: [" + "1," * 10**5 + "]\n", "line 4: more than 50000 values"),
        (TEXT + "threads: 0x" + "f" * 4000 + "\n", "threads=a number of thousands of digits"),
        (TEXT + "threads: 0b_\n", "not YAML"),
        (TEXT + "threads: 1" + ":1" * 2000 + ".5\n", "not YAML"),
        (TEXT + "[a]: b\n", "not YAML"),
    ],
    ids=range(43),
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
