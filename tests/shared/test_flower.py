"""The version of Flower, where it stands, and the private names of that version, each as gliofed uses it."""

import ast
import inspect
import tomllib
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest
from flower_names import USES, Use, signature_of
from flwr import __version__
from flwr.common.constant import ErrorCode

import gliofed
from gliofed.shared.flower import TESTED, other_version
from gliofed.shared.messages import FLOWER_ERRORS, LATE

ROOT = Path(__file__).parents[2]
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation")
ROOMS = ("client", "server", "shared", "simulation")


def test_what_is_installed_what_is_required_and_what_was_tested_are_one_version() -> None:
    """Else a fresh installation would refuse to start."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [each for each in project["dependencies"] if each.startswith("flwr")]
    assert required == [f"flwr=={TESTED}"]
    assert project["optional-dependencies"]["ray"] == ["flwr[simulation]"]  # of that version
    assert f"flwr=={TESTED}" in (ROOT / "requirements.lock").read_text().splitlines()
    assert __version__ == TESTED and other_version("it works") is None


@pytest.mark.parametrize(
    ("file", "use"),
    [pytest.param(file, use, id=f"{file}-{use.name}") for file, uses in USES.items() for use in uses],
)
def test_a_private_name_is_as_it_is_used(file: str, use: Use) -> None:
    where = f"{file} uses {use.name}: {use.purpose}"
    try:
        value = resolve_name(use.name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{where}; flwr {__version__} has no such name ({error})")
    if use.signature is not None:
        assert signature_of(value) == use.signature, where
    source = " ".join(inspect.getsource(value).split()) if use.lines else ""
    assert [line for line in use.lines if line not in source] == [], where


@pytest.mark.parametrize("room", ROOMS)
def test_every_private_name_that_is_imported_is_looked_at(room: str) -> None:
    found = {}
    for path in (Path(gliofed.__file__).parent / room).resolve().rglob("*.py"):
        if names := private_names(path.read_text()):
            found[f"{room}/{path.relative_to(ROOT / room)}"] = names
    assert found.keys() == {file for file in USES if file.startswith(f"{room}/")}
    for file, names in found.items():
        listed = [f"{use.name.replace(':', '.')}." for use in USES[file]]
        assert {name for name in names if not any(each.startswith(f"{name}.") for each in listed)} == set(), file


def private_names(source: str) -> set[str]:
    """What a file imports from Flower beyond its exports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names if each.name.startswith("flwr.")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "flwr":
            exported = import_module(node.module).__all__ if node.module in PUBLIC else ("__version__",)
            names |= {f"{node.module}.{each.name}" for each in node.names if each.name not in exported}
    return names


def test_flowers_errors_are_the_ones_that_are_put_into_words() -> None:
    """The numbers stand in shared/messages.py, so that a report is read without Flower."""
    assert {code: name for name, code in vars(ErrorCode).items() if code in FLOWER_ERRORS} == {
        1: "LOAD_CLIENT_APP_EXCEPTION",
        2: "CLIENT_APP_RAISED_EXCEPTION",
        3: "MESSAGE_UNAVAILABLE",
        4: "REPLY_MESSAGE_UNAVAILABLE",
        5: "NODE_UNAVAILABLE",
        7: "INVALID_FAB",
        8: "CLIENT_APP_CRASHED",
    }
    assert LATE not in vars(ErrorCode).values()
