"""Weights that a run starts from, `init=`: read and checked before anything is made, and kept in the run's folder."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

from torch import Tensor

from gliofed.shared.codec import LONGEST_HEADER, weights_from_bytes
from gliofed.shared.config import ModelConfig, RunConfig
from gliofed.shared.exported import Exported, find_export, read_export
from gliofed.shared.files import absolute, new_folder, write_bytes, write_json
from gliofed.shared.models import chosen
from gliofed.shared.parse import MALFORMED, ConfigError
from gliofed.shared.provenance import OWN_ENTRY, Chain, not_private, of_unknown_origin, read_provenance
from gliofed.shared.run_folder import ModelFolder, RunFolder
from gliofed.shared.sizes import MOST_PARAMETERS, at_home_of, outline_of_request
from gliofed.shared.tasks import TASKS
from gliofed.shared.wording import quantity

MOST_BYTES = 4 * MOST_PARAMETERS + LONGEST_HEADER
SUFFIX = ".safetensors"
FREE = ("dropout", "iterations", "stop_when_stable")
"""Options of a model that its weights do not depend on."""


@dataclass(frozen=True)
class Given:
    """Weights to start from, not yet checked against a run."""

    named: str
    """As the user gave them: init=..."""
    weights: bytes
    """safetensors, as the file has them."""
    exported: Exported | None
    """What model.json beside them says; None: a file alone."""
    provenance: Chain

    @cached_property
    def sha256(self) -> str:
        """Of the file of weights, in hex: `RunConfig.init`."""
        return hashlib.sha256(self.weights).hexdigest()

    def check(self, run: RunConfig) -> list[str]:
        """Say what the user should know of a run that starts from these weights.

        Raises ConfigError where they are of another model, or are no finite numbers.
        """
        at_home = at_home_of(run)
        if self.exported is not None:
            self._check_description(self.exported, run, at_home)
        self._check_tensors(run)
        said = []
        if self.exported is None:
            channels = ",".join(run.data.modalities)
            regions = "" if TASKS[run.task].label else f" and data.regions={','.join(run.data.regions)}"
            alone = "no model.json beside it, so nothing tells which channels it was trained on; it is taken to have"
            said.append(f"{self.named}: {alone} data.modalities={channels}{regions}, in this order")
        if at_home:
            kept = f"with algorithm={run.algorithm.name} it lacks what sites keep to themselves"
            said.append(f"{self.named}: {kept}; there every site begins as with a new model")
        if run.privacy.mechanism != "none" and (why := not_private(self.provenance)):
            said.append(f"{self.named}: {why}, so privacy.epsilon does not cover what these weights hold of patients")
        return said

    def keep(self, files: RunFolder) -> None:
        """Put them into a run's folder, whole or not at all: a resumed run needs nothing else."""
        with new_folder(files.init) as folder:
            write_bytes(ModelFolder(folder).weights, self.weights)
            write_json(ModelFolder(folder).provenance, self.provenance)
            if self.exported is not None:
                write_json(ModelFolder(folder).description, asdict(self.exported))

    def _check_description(self, exported: Exported, run: RunConfig, at_home: frozenset[str]) -> None:
        settings: list[tuple[str, object, object]] = [("model", exported.model.name, run.model.name)]
        settings.append(("task", exported.task, run.task))
        for option in [each.name for each in fields(ModelConfig) if each.name not in (*FREE, "name")]:
            theirs, ours = (getattr(each, option) for each in (exported.model, run.model))
            if chosen(run.model.name, option, theirs) != chosen(run.model.name, option, ours):
                settings.append((f"model.{option}", theirs, ours))
        settings.append(("data.modalities", exported.data.modalities, run.data.modalities))
        if not TASKS[run.task].label:
            settings.append(("data.regions", exported.data.regions, run.data.regions))
            settings.append(("data.missing", exported.data.missing, run.data.missing))
        for key, theirs, ours in settings:
            if theirs != ours:
                trained = f"was trained with {key}={_word(theirs)}, and this run has {key}={_word(ours)}"
                raise ConfigError(f"{self.named}: {trained}; give {key}={_word(theirs)}, or weights of such a model")
        if {*exported.at_home} != at_home:
            lacks = f"lacks {quantity(len(exported.at_home), 'tensor')} that the sites of that run kept to themselves"
            has = f"has {quantity(len(at_home), 'tensor')} that stay at the sites with algorithm={run.algorithm.name}"
            cure = "give the algorithm that it was trained with, or the weights of a run with this one"
            raise ConfigError(f"{self.named}: {lacks if exported.at_home else has}; {cure}")

    def _check_tensors(self, run: RunConfig) -> None:
        """Compare names, types and shapes with the run's model, and look for NaN and infinity."""
        wanted, found = outline_of_request(run, training=False), _tensors(self.weights, self.named)
        model = f"model.name={run.model.name} with model.preset={run.model.preset}"
        cure = f"give weights of {model}, or the settings of the model that these are of"
        if self.exported is not None:  # whose settings are this run's
            cure = "another version of gliofed wrote it; use that version, or begin without init"
        for much, odd in (("few", wanted.keys() - found.keys()), ("many", found.keys() - wanted.keys())):
            if odd:
                which = f"{quantity(len(odd), 'tensor')} too {much}"
                raise ConfigError(f"{self.named}: has {which} for this run's model ({min(odd)[:80]}, say); {cure}")
        for name, tensor in found.items():
            if (theirs := _kind(tensor)) != (ours := _kind(wanted[name])):
                raise ConfigError(f"{self.named}: {name} is {theirs}, and in this run's model {ours}; {cure}")
            if not tensor.isfinite().all():
                raise ConfigError(f"{self.named}: {name} has NaN or infinity; give the model of another round or run")


def read_given(init: object) -> Given | None:
    """Read what init= names: a run's folder, a folder with a model, or a file of tensors; None where nothing is named.

    Raises ConfigError where there is no model, or a file of it is damaged.
    """
    if init is None:
        return None
    named, path = f"init={init}", absolute(str(init))
    if path.is_file() and path.suffix != SUFFIX:
        pickle = "a pickle, as .pt and .pth are, may run code when it is read, so save its tensors with safetensors"
        raise ConfigError(f"{named}: not a {SUFFIX} file; {pickle}")
    if path.is_file() and not ModelFolder(path.parent).description.is_file():
        weights = _bytes(path, named)
        return Given(named, weights, None, of_unknown_origin(hashlib.sha256(weights).hexdigest(), None))
    if path.is_file() and path != ModelFolder(path.parent).weights:
        beside = f"{ModelFolder(path.parent).description.name} beside it is of {ModelFolder(path).weights.name}"
        raise ConfigError(f"{named}: {beside}; give the folder, or move this file to one of its own")
    if not path.exists():
        raise ConfigError(f"{named}: not there; give a run's folder, its model/ or best/, or a {SUFFIX} file")
    folder = find_export(path.parent if path.is_file() else path, "init")
    weights, exported = _bytes(ModelFolder(folder).weights, named), read_export(folder)
    sha256 = hashlib.sha256(weights).hexdigest()
    chain = read_provenance(folder, sha256, OWN_ENTRY) or of_unknown_origin(sha256, exported.run_id)
    return Given(named, weights, exported, chain)


def kept_weights(files: RunFolder, sha256: str) -> bytes:
    """Read the weights that a run keeps in init/. Raises ConfigError unless all is there as it was put there."""
    file, cure = ModelFolder(files.init).weights, "put init/ back from a copy"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}, and the run began with it; {cure}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ConfigError(f"{file}: not the weights that the run began with; {cure}")
    if not read_provenance(files.init, sha256):
        raise ConfigError(f"{ModelFolder(files.init).provenance}: is gone; {cure}")
    return data


def _bytes(file: Path, named: str) -> bytes:
    try:
        if (size := file.stat().st_size) > MOST_BYTES:
            raise ConfigError(f"{named}: {file.name} has {size} bytes; give a model of at most {MOST_BYTES}")
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{named}: {file.name} cannot be read ({error.strerror}); copy it again") from None


def _tensors(data: bytes, named: str) -> dict[str, Tensor]:
    try:
        return weights_from_bytes(data)
    except MALFORMED as error:
        raise ConfigError(f"{named}: {error}; copy the file again from where the model was made") from None


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _word(value: object) -> str:
    """A setting's value as a command line has it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return json.dumps(value).strip('"')
