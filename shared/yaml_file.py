"""A file of settings in YAML, as plain values: what may come from somebody else is read within bounds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from gliofed.shared.parse import ConfigError

LARGEST = 2**20
"""Bytes; the names of ten thousand patients have a third."""
DEEPEST = 8
"""Groups and lists inside each other."""
LONGEST = 4096
"""Characters of one value."""
MOST = 50_000
"""Values, groups and lists."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the first needs libyaml
    """Plain values; a key is the word that is written, and one that is given twice is an error.

    So 0xff is no number as a key, and << merges nothing. A patient named as a date stays a name.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own
        first: [(tag, pattern) for tag, pattern in each if tag != "tag:yaml.org,2002:timestamp"]
        for first, each in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a group."""
        seen: set[Any] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
            key.tag = "tag:yaml.org,2002:str"
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the settings of a file, or raise ConfigError: see `load_yaml`, or a value that is still ???."""
    values = load_yaml(path)
    if missing := sorted(_missing(values)):
        raise ConfigError(f"{path}: {', '.join(missing)}: still ???; fill in")
    return values


def load_yaml(path: Path) -> dict[str, Any]:
    """Read the settings of a file, those that are still ??? as well.

    Raises ConfigError: no such file, not YAML, too large, too deep, or with anchors, tags or ${...}. What an anchor
    names may be repeated without end, and ${oc.env:NAME} would be a word of the environment.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"{path}: larger than {LARGEST} bytes; settings are small")
        text = data.decode()
        _check_plain(text, path)
        values = yaml.load(text, _Loader)  # noqa: S506  # a safe one
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ConfigError:
        raise
    except (YAMLError, ValueError, ArithmeticError) as error:  # the last two over odd numbers, as 0b_
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: must be settings, as in name: value")
    return values or {}


def _check_plain(text: str, path: Path) -> None:
    """Raise ConfigError over what settings do not need, as soon as it is met."""
    depth = count = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        count += isinstance(event, yaml.NodeEvent)
        value = event.value if isinstance(event, yaml.ScalarEvent) else ""
        for wrong, problem in (
            (getattr(event, "anchor", None), "& and * of YAML: write the value itself, or quote it"),
            (getattr(event, "tag", None), "! of YAML: write the value alone, or quote it"),
            ("${" in value, "${...} is not replaced here; write the value itself"),
            (len(value) > LONGEST, f"a value of more than {LONGEST} characters"),
            (count > MOST, f"more than {MOST} values, groups and lists"),
            (depth > DEEPEST, f"more than {DEEPEST} groups and lists inside each other"),
        ):
            if wrong:
                raise ConfigError(f"{path}: line {event.start_mark.line + 1}: {problem}")


def _missing(values: Any, where: str = "") -> Iterator[str]:
    """Name the settings that are ???, as in policy.models."""
    if values == "???":
        yield where
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _missing(value, f"{where}.{key}" if where else str(key))
    elif isinstance(values, list):
        for place, value in enumerate(values):
            yield from _missing(value, f"{where}[{place}]")
