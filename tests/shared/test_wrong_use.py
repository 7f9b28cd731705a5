"""Wrong use of any command is one sentence that names the word, and status 2."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gliofed.client.cli
import gliofed.client.doctor.consent
import gliofed.client.link.preflight
import gliofed.server.cli
import gliofed.simulation.cli
from gliofed.shared.chain import lock
from gliofed.shared.files import home_path, write_bytes, write_json
from gliofed.shared.parse import ConfigError

NOBODY = "~nobody-of-that-name/x"
MAINS: dict[str, Callable[[], None]] = {
    "gliofed-client": gliofed.client.cli.main,
    "gliofed-server": gliofed.server.cli.main,
    "gliofed-simulate": gliofed.simulation.cli.main,
}


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str) -> str:
    monkeypatch.setattr(sys, "argv", words.split())
    with pytest.raises(SystemExit) as end:
        MAINS[sys.argv[0]]()
    sentence = capsys.readouterr().err
    assert end.value.code == 2 and sentence.count("\n") == 1 and sentence.startswith(words.split()[0])
    return sentence


@pytest.mark.parametrize(
    "words",
    [
        f"gliofed-client check data.root={NOBODY} data.labels=msd",
        f"gliofed-client predict model={NOBODY} data.root=x",
        f"gliofed-client ledger {NOBODY}",
        f"gliofed-client audit verify {NOBODY}",
        f"gliofed-client start {NOBODY}",
        f"gliofed-client withdraw p {NOBODY}",
        f"gliofed-server start {NOBODY}",
        f"gliofed-server run federation={NOBODY} resume=x",
        f"gliofed-server audit verify {NOBODY}",
        f"gliofed-simulate data=mock out={NOBODY}",
    ],
)
def test_a_home_folder_of_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert f"{NOBODY}: no such user on this machine" in said(monkeypatch, capsys, words)


@pytest.mark.parametrize(
    "words",
    [
        "gliofed-client join ./~x --patients 9",
        "gliofed-client approve ./~x",
        "gliofed-client start ./~x",
        "gliofed-client ledger ./~x",
        "gliofed-client audit verify ./~x",
        "gliofed-client predict model=./~x data.root=x",
        "gliofed-server start ./~x",
        "gliofed-server stop --folder=./~x",
        "gliofed-server report ./~x",
        "gliofed-server run federation=./~x resume=x",
        "gliofed-server audit verify ./~x",
        "gliofed-simulate attack=membership run=./~x",
    ],
)
def test_a_folder_whose_name_begins_like_a_users(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str
) -> None:
    """A path among the words is read as one of a setting: ~ is the home folder, and ./~x is not."""
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path}/~x" in said(monkeypatch, capsys, words)
    monkeypatch.setenv("HOME", "/home-of-mine")
    assert "/home-of-mine/x" in said(monkeypatch, capsys, words.replace("./~x", "~/x"))


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("gliofed-client join", "gliofed-client join: the following arguments are required: KIT.zip"),
        ("gliofed-client join x --patients many", "argument --patients: invalid int value: 'many'"),
        ("gliofed-client ledger", "required: WORK"),
        ("gliofed-client audit", "required: verify"),
        ("gliofed-server", "gliofed-server: the following arguments are required: command"),
        ("gliofed-server nonesuch", "invalid choice: 'nonesuch'"),
        ("gliofed-server audit", "required: verify|copy"),
        ("gliofed-server audit verify", "required: RUN"),
        ("gliofed-server run --fast", "unrecognized arguments: --fast"),
        ("gliofed-simulate --fast", "unrecognized arguments: --fast"),
    ],
)
def test_words_that_no_parser_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, wrong: str
) -> None:
    sentence = said(monkeypatch, capsys, words)
    assert wrong in sentence and sentence.endswith(" --help\n")


@pytest.mark.parametrize("words", ["check data.root={scans} data.labels=mock work={folder}/work", "start {folder}"])
def test_a_log_that_another_process_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str
) -> None:
    """Both ask who withdrew, and make the key of the pseudonyms where there is none."""
    scans, folder = tmp_path / "scans", tmp_path / "a"
    write_bytes(scans / "P1/P1_flair.nii", b"")
    write_json(folder / "kit.json", {})
    write_bytes(folder / "site.yaml", f"name: a\nroot: {scans}\nlabels: mock\nwork: work\n".encode())
    monkeypatch.setattr(
        gliofed.client.doctor.consent, "WAIT", 0.0
    )  # another process holds it for longer than anybody waits
    monkeypatch.setattr(gliofed.client.link.preflight, "_look_at_environment", lambda *_: None)  # loads PyTorch
    monkeypatch.setattr(sys, "argv", ["gliofed-client", *words.format(scans=scans, folder=folder).split()])
    with lock(folder / "work"), pytest.raises(SystemExit) as end:
        gliofed.client.cli.main()
    sentence = f"{folder}/work: another run holds this log; wait until it ends"
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "another run" in line)
    assert end.value.code == 2 and said.startswith(f"gliofed-client: {sentence}")


def test_a_path_with_a_zero_byte() -> None:
    with pytest.raises(ConfigError, match="has a zero byte"):
        home_path("a\0b")
