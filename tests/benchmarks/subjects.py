"""What is measured: our models and MONAI's at equal widths, the ConvLSTM cell, and the published CLSTM-UNet3D."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from gliofed.shared.config import PRESETS
from gliofed.shared.models.clstm_unet3d import CLSTMUNet3D
from gliofed.shared.models.cnn_lstm import CNNLSTM
from gliofed.shared.models.conv_lstm import ConvLSTM
from gliofed.shared.models.lstm_unet import LSTMUNet3D
from gliofed.shared.models.monai_reference import DynUNetReference, SegResNetReference
from gliofed.shared.models.unet import UNet3D
from gliofed.shared.tasks.grading import Grading
from gliofed.shared.tasks.segmentation import Segmentation
from tests.benchmarks.published_design import PublishedDesign, SlowConvLSTM

MODALITIES, REGIONS, FRAMES = 4, 3, 5
REQUIREMENT = "clstm_unet3d at width 32"
PUBLISHED = "the published design at width 32"

Shape = tuple[int, ...]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A model and what it is trained on."""

    name: str
    build: Callable[[], nn.Module]
    image: Shape
    target: Shape
    loss: Loss = Segmentation().loss
    against: str | None = None
    """The subject that its figures are divided by."""
    inner: bool = False
    """Stands inside a model: its input needs a gradient too."""


@dataclass(frozen=True)
class Sizes:
    """Voxels a side, and patients a step."""

    volume: int
    series: int
    batch: int


class Cell(nn.Module):
    """A ConvLSTM's output without its states."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cell = ConvLSTM(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.cell(x)[0]
        return output


def of_preset(preset: str, sizes: Sizes) -> list[Subject]:
    """Every model at the widths of `preset`; what a ratio is taken to comes first."""
    widths = PRESETS[preset]
    return _volumes(widths, sizes) + _graders(widths, sizes) + _series(widths, sizes)


def requirement() -> list[Subject]:
    """Our CLSTM-UNet3D may take half the time of the published design and .7 of its memory."""
    shape = (2, FRAMES, 1, 16, 32, 32)
    return [
        Subject(PUBLISHED, lambda: PublishedDesign(1, 1, 32), shape, shape),
        Subject(REQUIREMENT, lambda: CLSTMUNet3D(1, 1, PRESETS["base"]), shape, shape, against=PUBLISHED),
    ]


def _volumes(widths: Shape, sizes: Sizes) -> list[Subject]:
    models: dict[str, Callable[..., nn.Module]] = {
        "unet": UNet3D,
        "lstm_unet": LSTMUNet3D,
        "monai unet, 0 residual units": partial(_monai_unet, units=0),
        "monai unet, 2 residual units": partial(_monai_unet, units=2),
        "monai dynunet": DynUNetReference,
        "monai segresnet": SegResNetReference,
    }
    space = (sizes.volume,) * 3
    image, target = (sizes.batch, MODALITIES, *space), (sizes.batch, REGIONS, *space)
    return [
        Subject(name, partial(model, MODALITIES, REGIONS, widths), image, target, against="unet")
        for name, model in models.items()
    ]


def _monai_unet(in_channels: int, out_channels: int, widths: Shape, *, units: int) -> nn.Module:
    strides = (2,) * (len(widths) - 1)
    net: nn.Module = UNet(3, in_channels, out_channels, channels=widths, strides=strides, num_res_units=units)
    return net


def _graders(widths: Shape, sizes: Sizes) -> list[Subject]:
    image = (sizes.batch, MODALITIES, *(sizes.volume,) * 3)
    return [
        Subject(
            f"cnn_lstm {encoder}",
            partial(CNNLSTM, MODALITIES, 1, widths, encoder=encoder),
            image,
            (sizes.batch, 1),
            loss=Grading().loss,
            against="unet",
        )
        for encoder in ("cnn1", "cnn2", "cnn3")
    ]


def _series(widths: Shape, sizes: Sizes) -> list[Subject]:
    shape = (sizes.batch, FRAMES, 1, *(sizes.series,) * 3)
    channels, side = widths[-1], sizes.series // 2 ** (len(widths) - 1)
    bottom = (sizes.batch, FRAMES, channels, *(side,) * 3)
    cell: dict[str, Any] = {"image": bottom, "target": bottom, "loss": nn.functional.mse_loss, "inner": True}
    return [
        Subject("clstm_unet3d", partial(CLSTMUNet3D, 1, 1, widths, difference=True), shape, shape),
        Subject("slow ConvLSTM", partial(SlowConvLSTM, channels, channels), **cell),
        Subject("our ConvLSTM", partial(Cell, channels), against="slow ConvLSTM", **cell),
    ]
