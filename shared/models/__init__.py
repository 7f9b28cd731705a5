from dataclasses import asdict
from inspect import getattr_static, signature
from typing import Any, Protocol

from torch import nn

from gliofed.shared.config import PRESETS, ModelConfig
from gliofed.shared.models.clstm_unet3d import CLSTMUNet3D
from gliofed.shared.models.cnn_lstm import CNNLSTM
from gliofed.shared.models.lstm_unet import LSTMUNet3D
from gliofed.shared.models.monai_reference import DynUNetReference, SegResNetReference
from gliofed.shared.models.unet import UNet3D


class Model(Protocol):
    """A class of models."""

    series: bool
    """Whether it takes a series of visits."""
    task: str
    """A key of `gliofed.shared.tasks.TASKS`."""

    def __call__(self, *sizes: Any, **options: Any) -> nn.Module:
        """Make one of so many modalities, outputs and channels of its levels, finest first."""


MODELS: dict[str, Model] = {
    "unet": UNet3D,
    "lstm_unet": LSTMUNet3D,
    "clstm_unet3d": CLSTMUNet3D,
    "cnn_lstm": CNNLSTM,
    "monai_dynunet": DynUNetReference,
    "monai_segresnet": SegResNetReference,
}
"""Every model by the name that a configuration uses. A new one is a file beside this one and an entry here."""

PRESENCE = "presence"
"""Option of a model that is told which images there are by a layer; data.missing sets it."""


def build_model(config: ModelConfig, in_channels: int, out_channels: int, missing: str = "refuse") -> nn.Module:
    """Make the model that `config` names, for images of `in_channels` modalities and `out_channels` outputs.

    With `missing` = mask, as `DataConfig.missing`, it is one that can be told which modalities there are.
    Its weights come from torch's global generator: seed that first.
    Raises ValueError for an unknown name, for an option that this model does not have, and for mask where it cannot be
    told.
    """
    model = _model(config.name)
    given = {name: value for name, value in asdict(config).items() if value is not None}
    given = {name: value for name, value in given.items() if name not in ("name", "preset")}
    has = [name for name, parameter in signature(model).parameters.items() if parameter.kind == parameter.KEYWORD_ONLY]
    if missing == "mask" and not _can_mask(model):
        can = [name for name, each in MODELS.items() if each.task == model.task and _can_mask(each)]
        raise ValueError(
            f"data.missing={missing}: {config.name} cannot be told which images there are; use model="
            f"{' or '.join(can)}, or data.missing=refuse"
        )
    masks = {PRESENCE: True} if missing == "mask" and PRESENCE in has else {}
    has = [name for name in has if name != PRESENCE]
    for name, value in given.items():
        if name not in has:
            options = ", ".join(has) or "no options"
            raise ValueError(
                f"model.{name}={value}: {config.name} has {options}; leave it out, or give model.{name}=null"
            )
    return model(in_channels, out_channels, PRESETS[config.preset], **given, **masks)


def chosen(name: str, option: str, value: object) -> object:
    """What model `name` makes of the value of an option: of None, its own choice."""
    parameters = signature(_model(name)).parameters
    return parameters[option].default if value is None and option in parameters else value


def reads_series(name: str) -> bool:
    """Whether model `name` takes (B, T, C, D, H, W), a series of visits, and not (B, C, D, H, W)."""
    return _model(name).series


def task_of(name: str) -> str:
    """What model `name` is for: a key of `gliofed.shared.tasks.TASKS`."""
    return _model(name).task


def _can_mask(model: Model) -> bool:
    """Whether it takes `present`: by itself, or with the option PRESENCE."""
    return "present" in signature(getattr_static(model, "forward")).parameters


def _model(name: str) -> Model:
    if name not in MODELS:
        raise ValueError(f"model.name={name}: unknown; known are {', '.join(MODELS)}")
    return MODELS[name]
