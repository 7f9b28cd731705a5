"""The words of a command line, as Hydra reads them, and what it says, as a user can read it."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hydra import compose, initialize_config_module
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from gliofed.shared.help_text import CONFIGS
from gliofed.shared.parse import ConfigError

_NO_CHOICE = re.compile(r"null|true|false|[\d.]*")


def composed(name: str, given: Sequence[str], paths: Mapping[str, str]) -> dict[str, Any]:
    """The settings of configs/NAME.yaml with what the words of a command line set; `paths` as `quoted` takes them.

    Raises ConfigError for a word that is wrong, and for a setting that must be given.
    """
    check_words(given)
    try:
        with initialize_config_module("gliofed.configs", version_base="1.3"):
            config = compose(name, [quoted(word, paths) for word in given])
            if missing := OmegaConf.missing_keys(config):
                names = sorted({key: word for word, key in paths.items()}.get(key, key) for key in missing)
                raise ConfigError(f"{', '.join(names)}: must be given")
            values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:  # the last two where data=5, say
        raise ConfigError(message(error)) from None
    return values


def check_words(words: Sequence[str]) -> None:
    """Refuse what Hydra would take and no run has, and what it refuses without naming it. Raises ConfigError."""
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("+"):
            raise ConfigError(
                f"{word}: adds a setting, and no command has others than its own; give {word.lstrip('+')}"
            )
        if equals and _choices(key) and _NO_CHOICE.fullmatch(value.lower()):
            raise ConfigError(f"{word}: must be the name of a choice, which --help lists")


def quoted(word: str, paths: Mapping[str, str]) -> str:
    r"""Quote a path for Hydra, to whose grammar many characters mean something; other words stay as they are.

    `paths` are the words that give paths, and what the configuration calls them.

    >>> quoted("model=outputs/0-model=unet,seed=1", {"model": "model.folder"})
    "model.folder='outputs/0-model=unet,seed=1'"
    """
    key, _, path = word.partition("=")
    if key not in paths:
        return word
    if path in ("", "null", "???"):
        return f"{paths[key]}={path}"
    path = re.sub(r"(\\*)\$\{", r"\1\1\\${", path)  # else OmegaConf puts a setting there
    path = re.sub(r"(\\*)('|\Z)", lambda end: end[1] * 2 + (r"\'" if end[2] else ""), path)
    return f"{paths[key]}='{path}'"


def sentence(error: Exception, command: str) -> str:
    """Say what is wrong, and where `command` helps."""
    return f"{message(error)}; see {command} --help"


def message(error: Exception) -> str:
    """Say what is wrong, without Hydra's advice to append a key: the settings are fixed."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: unknown" + (f"; there are {', '.join(error.options)}" if error.options else "")
    if isinstance(error.__cause__, (ConfigAttributeError, ConfigKeyError)):
        return _no_such_setting(error.__cause__)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read; give KEY=VALUE, and close each bracket and quote"
    if several := re.match(r"Ambiguous value for argument '(.+)'\n", str(error)):
        return f"{several[1]}: several values; a list has brackets, and gliofed-simulate -m makes a run with each"
    if choice := re.match(r"Could not override '([^']+)'\. No match in the defaults list", str(error)):
        return f"{choice[1]}: no choice of this command"
    says = str(error).split("\n    full_key:")[0]  # OmegaConf's own notes follow
    return " ".join(says.split())[:400]


def _no_such_setting(error: ConfigAttributeError | ConfigKeyError) -> str:
    key = error.full_key or ""
    group = key.rpartition(".")[0]
    there = [str(each) for each in error.parent_node or () if each != "hydra"]
    if group == "privacy" and there == ["mechanism"]:
        return f"{key}: privacy=none has no settings; give privacy=dp_sgd as well"
    if others := [name for name in _choices(group) if _has(group, name, str(error.key))]:
        return f"{key}: no such setting; {group} has {', '.join(there)}; it is of {group}={', '.join(others)}"
    if near := get_close_matches(str(error.key), there, 1):
        return f"{key}: no such setting (did you mean {group}{'.' * bool(group)}{near[0]}?)"
    return f"{key}: no such setting" + (f"; {group} has {', '.join(there)}" if group and there else "")


def _choices(group: str) -> list[str]:
    """Of a group of configs/; none where it is no group."""
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml")) if re.fullmatch(r"\w{1,64}", group) else []


def _has(group: str, name: str, key: str) -> bool:
    """Whether a choice has the setting: in its file, or, where that sets other groups too, in its own part of it."""
    values: Any = OmegaConf.load(CONFIGS / group / f"{name}.yaml")
    return key in (values.get(group) or values)
