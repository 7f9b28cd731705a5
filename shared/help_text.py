"""What --help prints: docstrings, keys of registries and the comments in configs/; no name is listed by hand."""

import ast
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

CONFIGS = Path(str(files("gliofed.configs")))
WIDTH, COLUMN = 120, 32
"""Columns of the whole, and of what stands left."""
_SETTING = re.compile(r"( *)(\w+):(?: +(.*?))?(?: +# (.*))?")


def help_text(docstring: str | None, **parts: Mapping[str, str]) -> str:
    """A command's docstring, with a row for each entry of a part in place of its name, as in $choices."""
    return Template(docstring or "").substitute({name: rows(part) for name, part in parts.items()}).rstrip()


def rows(part: Mapping[str, str]) -> str:
    """Two columns, the second folded.

    >>> print(rows({"codec=fp32": "how updates travel"}))
      codec=fp32                    how updates travel
    """
    lines = []
    for word, text in part.items():
        begin = f"  {word:<{COLUMN - 2}}" if len(word) < COLUMN - 2 else f"  {word}  "
        lines += textwrap.wrap(begin + text, WIDTH, subsequent_indent=" " * COLUMN, break_on_hyphens=False)
    return "\n".join(lines)


def choices(config: str) -> dict[str, str]:
    """Each file of the groups of configs/CONFIG.yaml, by the word that chooses it, with its first comment line."""
    return {
        f"{group}={file.stem}": _first_comment(file) + " (default)" * (file.stem == chosen)
        for group, chosen in _groups(config)
        for file in sorted((CONFIGS / group).glob("*.yaml"), key=lambda file: (file.stem != chosen, file.stem))
    }


def settings(config: str, registries: Mapping[str, Collection[str]], **renamed: str) -> dict[str, str]:
    """Each setting of configs/CONFIG.yaml and of its default choices that has a comment, with its value.

    One whose values are the keys of a registry lists them. `renamed` are settings with a shorter word for users.
    """
    main, found = CONFIGS / f"{config}.yaml", dict[str, str]()
    others = _of_recipe(config)
    sources = [("", main), *[("", CONFIGS / "run.yaml")] * ("\n  - run\n" in _text(main))]
    sources += [(group, CONFIGS / group / f"{chosen}.yaml") for group, chosen in _groups(config)]
    for group, file in ((group, file) for group, file in sources if file.exists()):
        for key, value, comment in _commented(file, group):
            known = f"; one of {', '.join(registries[key])}" if key in registries else ""
            word = {full: short for short, full in renamed.items()}.get(key, key)
            found.setdefault(f"{word}={'...' if value == '???' else others.get(key, value)}", comment + known)
    return found


def labels() -> dict[str, str]:
    """Each label scheme, by the word that declares it, with its regions."""
    from gliofed.shared.data.labels import LABELS

    return {f"data.labels={scheme}": f"regions {', '.join(regions)}" for scheme, regions in LABELS.items()}


def layouts() -> dict[str, str]:
    """Each layout, by its name, with what a folder of it looks like."""
    from gliofed.shared.data.releases import LAYOUTS

    return {name: layout.form or "a table in the folder, which names the files" for name, layout in LAYOUTS.items()}


def first_line(docstring: str | None) -> str:
    """The first line of a docstring, without its full stop."""
    return (docstring or "").partition("\n")[0].rstrip(".")


def module_line(module: str) -> str:
    """That of a module, which is not imported: what it needs may be slow to load."""
    spec = find_spec(module)
    assert spec and spec.origin, "a registry names a module that is there"
    return first_line(ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))))


def _groups(config: str) -> list[tuple[str, str]]:
    """The groups of the defaults list, each with what it chooses, or null; one may follow others: ${data}."""
    found = re.findall(r"^  - (?:optional )?(\w+): ([\w${}]+)$", _text(CONFIGS / f"{config}.yaml"), re.MULTILINE)
    return [(group, Template(choice).substitute(dict(found))) for group, choice in found]


def _of_recipe(config: str) -> dict[str, str]:
    """Values that the default recipe has in the place of others', with those of a file that it takes up."""
    file = CONFIGS / "recipe" / f"{dict(_groups(config)).get('recipe')}.yaml"
    if not file.exists():
        return {}
    parts = re.findall(r"^  - /(\w+)@\S+: (\w+)$", _text(file), re.MULTILINE)
    taken = [CONFIGS / group / f"{name}.yaml" for group, name in parts]
    return {key: value for each in (*taken, file) for key, value, _ in _commented(each, "", also_without=True)}


def _commented(file: Path, group: str, also_without: bool = False) -> Iterator[tuple[str, str, str]]:
    """(key with its groups, value, comment) of each setting with a comment, or of all; Hydra's own are none."""
    if package := re.match(r"# @package (\S+)", _text(file)):
        group = package[1].removeprefix("_global_")
    above: list[str] = []
    for line in _text(file).splitlines():
        if match := _SETTING.fullmatch(line):
            indent, key, value, comment = match.groups()
            above = [*above[: len(indent) // 2], key]
            if value and (comment or also_without) and above[0] not in ("defaults", "hydra"):
                yield ".".join([*filter(None, [group]), *above]), value, comment


def _first_comment(file: Path) -> str:
    comment = re.search(r"^# (?!@package)(.*)", _text(file), re.MULTILINE)
    return comment[1].rstrip(".") if comment else ""


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
