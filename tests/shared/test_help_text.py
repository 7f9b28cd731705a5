"""--help is made from what the program itself reads: nobody can forget to add a line."""

import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

import gliofed.client.cli
import gliofed.server.cli
import gliofed.simulation.cli
from gliofed.server.round.fold import FOLDS
from gliofed.server.round.strategies import STRATEGIES
from gliofed.shared import help_text
from gliofed.shared.codecs import CODECS
from gliofed.shared.config import PRESETS
from gliofed.shared.data.labels import LABELS
from gliofed.shared.data.releases import LAYOUTS
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.models import MODELS
from gliofed.simulation.attacks import ATTACKS
from gliofed.simulation.engines import ENGINES
from gliofed.simulation.faults import FAULTS
from gliofed.simulation.partition import PARTITIONS

MAINS = {
    "gliofed-client": gliofed.client.cli.main,
    "gliofed-server run": gliofed.server.cli.main,
    "gliofed-simulate": gliofed.simulation.cli.main,
}
OF_A_RUN: dict[str, Collection[str]] = {
    "model=": MODELS,
    "fold=": FOLDS,
    "strategy=": STRATEGIES,
    "privacy=": MECHANISMS,
    "": [*CODECS, *PRESETS],
}
REGISTRIES: dict[str, dict[str, Collection[str]]] = {
    "gliofed-client": {"data.labels=": LABELS, "": [*LAYOUTS, *gliofed.client.cli.COMMANDS]},
    "gliofed-server run": OF_A_RUN,
    "gliofed-simulate": {
        **OF_A_RUN,
        "data.labels=": LABELS,
        "partition=": PARTITIONS,
        "engine=": ENGINES,
        "attack=": ATTACKS,
        "": [*CODECS, *PRESETS, *FAULTS],
    },
}


@pytest.fixture(params=MAINS)
def command(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def printed(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", [*command.split(), "--help"])
    with pytest.raises(SystemExit) as end:
        MAINS[command]()
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_has_each_key_of_each_registry(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = printed(command, monkeypatch, capsys).replace(",", "").split()
    text = " ".join(words)
    for prefix, registry in REGISTRIES[command].items():
        assert [key for key in registry if prefix + key not in (text if " " in key else words)] == []


@pytest.mark.parametrize("command", ["gliofed-server run", "gliofed-simulate"])
@pytest.mark.parametrize("group", [path.name for path in help_text.CONFIGS.iterdir() if any(path.glob("*.yaml"))])
def test_help_has_a_new_file_of_configs(
    command: str, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path is replaced, since the program's own folder is no place for a test's files."""
    shutil.copytree(help_text.CONFIGS, tmp_path / "configs")
    monkeypatch.setattr(help_text, "CONFIGS", tmp_path / "configs")
    (tmp_path / "configs" / group / "new.yaml").write_text("# @package _global_\n# What nobody has thought of.\nx: 1\n")
    lines = printed(command, monkeypatch, capsys).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines if f" {group}=new " in line] == ["What nobody has thought of"]


def test_help_gives_a_setting_with_value_comment_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "main.yaml").write_text(
        "# A command.\ndefaults:\n  - part: one\n  - _self_\n\na: 1 # apples\nb:\n  c: ??? # cherries\nd: 2\n"
    )
    (tmp_path / "part/one.yaml").write_text("# @package part.inner\n# The first.\ne: [1, 2] # two\n")
    monkeypatch.setattr(help_text, "CONFIGS", tmp_path)  # small files show what is made of them
    assert help_text.settings("main", {"a": ["1", "3"]}, see="b.c") == {
        "a=1": "apples; one of 1, 3",
        "see=...": "cherries",
        "part.inner.e=[1, 2]": "two",
    }


@pytest.mark.parametrize(
    "command", ["report", "provision", "renew", "admit", "expel", "start", "status", "anew", "logs"]
)
def test_a_command_of_the_server_says_what_it_does(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its help had nothing but its arguments."""
    monkeypatch.setattr(sys, "argv", ["gliofed-server", command, "--help"])
    with pytest.raises(SystemExit):
        gliofed.server.cli.main()
    usage, does, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith("usage: ") and does.endswith(".") and not does.startswith(("positional", "options"))


@pytest.mark.slow
def test_help_does_not_load_pytorch() -> None:
    """That takes seconds."""
    code = "import sys; from gliofed.{0}.cli import main; sys.argv[1:] = {1}\ntry: main()\n"
    code += "except SystemExit: pass\nsys.exit('torch' in sys.modules)"
    for room, words in (("client", ["--help"]), ("server", ["run", "--help"]), ("simulation", ["--help"])):
        subprocess.run([sys.executable, "-c", code.format(room, words)], check=True, stdout=subprocess.DEVNULL)
