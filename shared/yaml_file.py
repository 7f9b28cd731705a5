"""A file of settings in YAML, as plain values."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from shared.parse import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the settings of a file, or raise ConfigError: no such file, not YAML, or a value that is still ???."""
    try:
        config = OmegaConf.load(path)
        missing = sorted(OmegaConf.missing_keys(config))
        values = None if missing else OmegaConf.to_container(config, resolve=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None
    except OSError as error:
        # OmegaConf raises it without a number over a file that is no group of settings.
        raise ConfigError(f"{path}: {error.strerror or 'must be settings, as in name: value'}") from None
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)}: still ???; fill in")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be settings, as in name: value")
    return {str(key): value for key, value in values.items()}
