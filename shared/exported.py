"""The `model/` folder that a run leaves: found, and its description read. No PyTorch here, so that it is quick."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from gliofed.shared.config import DataConfig, ModelConfig, RunConfig
from gliofed.shared.parse import ConfigError, SiteName, Strict, matching, parse
from gliofed.shared.run_folder import ModelFolder, RunFolder
from gliofed.shared.tasks import TaskName


@dataclass(frozen=True, kw_only=True)
class Exported(Strict):
    """What model.json says."""

    task: TaskName
    model: ModelConfig
    data: DataConfig
    run_id: SiteName
    """Of the characters of a site's name."""
    round: int
    at_home: tuple[str, ...] = ()
    """Tensors of the model that each site has of its own, and that are not in the file beside."""
    parents: tuple[Annotated[str, matching("[0-9a-f]{64}", "must be a SHA-256 in hex")], ...] = ()
    """SHA-256 of each site's last update that counted: by it the site finds its own."""
    validation: dict[str, float] = field(default_factory=dict)
    """Of a best round: the score by which it was chosen, and the number of patients behind it."""
    run: RunConfig | None = None
    """All that the federation agreed on; sites have numbers for names. None in a reference, and in earlier versions."""


def find_export(given: Path, key: str = "model") -> Path:
    """Return the folder with a model's two files: the given one, or that of a given run.

    Raises ConfigError without any, with the setting `key` that named the folder.
    """
    for folder in (given, RunFolder(given).model):
        if ModelFolder(folder).description.is_file() and ModelFolder(folder).weights.is_file():
            return folder
    names = f"{ModelFolder(given).description.name} and {ModelFolder(given).weights.name}"
    raise ConfigError(f"{key}={given}: no {names} there; give the model/ folder that a run writes at its end")


def read_export(folder: Path, options: Mapping[str, Any] = MappingProxyType({})) -> Exported:
    """Read model.json; `options` of the model, but for those that are None, replace its own.

    Raises ConfigError: the file is damaged, or a value cannot be.
    """
    path, cure = ModelFolder(folder).description, "copy it again from the run"
    try:
        exported = parse(Exported, path.read_text(encoding="utf-8"), str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}; {cure}, or take the version of gliofed that wrote it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); {cure}") from None
    if (run := exported.run) and (run.task, run.model, run.data) != (exported.task, exported.model, exported.data):
        raise ConfigError(f"{path}: its run has another task, model or data than the model; {cure}")
    given = {name: value for name, value in options.items() if value is not None}
    return replace(exported, model=parse(ModelConfig, asdict(exported.model) | given, "model"))
