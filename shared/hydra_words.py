"""What Hydra says, as a user can read it."""

import re
from difflib import get_close_matches

from hydra.errors import MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError


def sentence(error: Exception, command: str) -> str:
    """Say what is wrong, and where `command` helps."""
    return f"{words(error)}; see {command} --help"


def words(error: Exception) -> str:
    """Say what is wrong, without Hydra's advice to append a key: the settings are fixed."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: unknown" + (f"; there are {', '.join(error.options)}" if error.options else "")
    if isinstance(error.__cause__, (ConfigAttributeError, ConfigKeyError)):
        return _no_such_setting(error.__cause__)
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
    if near := get_close_matches(str(error.key), there, 1):
        return f"{key}: no such setting (did you mean {group}{'.' * bool(group)}{near[0]}?)"
    return f"{key}: no such setting" + (f"; {group} has {', '.join(there)}" if group and there else "")
