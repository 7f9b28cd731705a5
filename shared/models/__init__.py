from torch import nn

from shared.config import ModelConfig
from shared.models.clstm_unet3d import CLSTMUNet3D
from shared.models.unet import UNet3D

MODELS: dict[str, type[UNet3D] | type[CLSTMUNet3D]] = {"unet": UNet3D, "clstm_unet3d": CLSTMUNet3D}
"""Every model by the name that a configuration uses. A new one is a file beside this one and an entry here."""

PRESETS: dict[str, tuple[int, ...]] = {
    "demo": (8, 16, 32),
    "tiny": (8, 16, 32, 64),
    "small": (16, 32, 64, 128),
    "base": (32, 64, 128, 256),
    "full": (64, 128, 256, 512),
}
"""Channels of each level, finest first."""


def build_model(config: ModelConfig, in_channels: int, out_channels: int) -> nn.Module:
    """Make the model that `config` names, for images of `in_channels` modalities and `out_channels` outputs.

    Its weights come from torch's global generator: seed that first.
    """
    if config.preset not in PRESETS:
        raise ValueError(f"model.preset={config.preset}: unknown; known are {', '.join(PRESETS)}")
    return _model(config.name)(in_channels, out_channels, PRESETS[config.preset])


def reads_series(name: str) -> bool:
    """Whether model `name` takes (B, T, C, D, H, W), a series of visits, and not (B, C, D, H, W)."""
    return _model(name).series


def _model(name: str) -> type[UNet3D] | type[CLSTMUNet3D]:
    if name not in MODELS:
        raise ValueError(f"model.name={name}: unknown; known are {', '.join(MODELS)}")
    return MODELS[name]
