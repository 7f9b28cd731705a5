"""Wrong use of any command is one sentence that names the word, and status 2."""

import sys
from collections.abc import Callable

import pytest

import client.cli
import server.cli
import simulation.cli
from shared.files import home_path
from shared.parse import ConfigError

NOBODY = "~nobody-of-that-name/x"
MAINS: dict[str, Callable[[], None]] = {
    "gliofed-client": client.cli.main,
    "gliofed-server": server.cli.main,
    "gliofed-simulate": simulation.cli.main,
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


def test_a_path_with_a_zero_byte() -> None:
    with pytest.raises(ConfigError, match="has a zero byte"):
        home_path("a\0b")
