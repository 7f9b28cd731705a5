"""What a run is: typed, validated, from Hydra and from JSON."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from math import prod
from typing import Annotated, Any, Literal

from pydantic import FailFast, Field

from gliofed.shared.algorithms import FEDAVG, AlgorithmConfig
from gliofed.shared.algorithms.optimizers import ADAMW, OptimizerConfig
from gliofed.shared.apart import APART
from gliofed.shared.codecs import CODECS
from gliofed.shared.mechanisms import MECHANISMS, NOT_PRIVATE, PrivacyConfig
from gliofed.shared.parse import Fraction, Name, Names, PositiveFloat, Seconds, Seed, SiteName, Strict, key_of, matching
from gliofed.shared.tasks import TaskName

Edge = Annotated[int, Field(gt=0, le=1024)]
Spacing = Annotated[float, Field(ge=0.1, le=100)]
MOST_ROUNDS, MOST_SITES = 1_000_000, 99_999
SMALLEST_VOXEL = 0.05
"""mm3. A scan of 240 x 240 x 240 mm then has 280 million voxels."""

PRESETS: dict[str, tuple[int, ...]] = {
    "demo": (8, 16, 32),
    "tiny": (8, 16, 32, 64),
    "small": (16, 32, 64, 128),
    "base": (32, 64, 128, 256),
    "full": (64, 128, 256, 512),
}
"""Channels of each level of a model, finest first."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Strict):
    """Which network."""

    name: Name
    """A key of `gliofed.shared.models.MODELS`."""
    preset: Annotated[str, key_of(PRESETS)]
    """Widths: a key of PRESETS."""
    layers: Annotated[int, Field(gt=0, le=16)] | None = None
    """ConvLSTM layers of clstm_unet3d. None, here and below: the model's own choice."""
    light: bool | None = None
    """Depthwise hidden convolutions in the ConvLSTM of clstm_unet3d."""
    bidirectional: bool | None = None
    """clstm_unet3d: a visit sees later visits too."""
    difference: bool | None = None
    """clstm_unet3d: beside each visit the encoder reads its difference to the visit before."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Chance of a channel to be dropped in training, in the encoder of unet and clstm_unet3d."""
    deep_supervision: bool | None = None
    """unet and monai_dynunet: in training the coarser levels make masks too, each with its loss."""
    iterations: Annotated[int, Field(gt=0, le=64)] | None = None
    """Refinements of lstm_unet, of which training draws from 1 to so many; may be changed after training."""
    stop_when_stable: bool | None = None
    """lstm_unet refines no further, in evaluation, when the mask at half resolution no longer changes."""
    encoder: Name | None = None
    """Of cnn_lstm: a key of `gliofed.shared.models.cnn_lstm.ENCODERS`."""
    as_published: bool | None = None
    """cnn_lstm as its document has it: BatchNorm, no stride, plain average pooling."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Strict):
    """What every site makes of its scans."""

    modalities: Names
    """Input channels, in this order."""
    missing: Literal["refuse", "mask"] = "refuse"
    """What becomes of a case that lacks some of them, in segmentation: refuse leaves it out; mask fills its channels
    with zeros and tells the model which those are. A label is learned from what there is, in either."""
    regions: Names
    """Output channels of segmentation; a site's label scheme must define each."""
    window: Annotated[int, Field(gt=0, le=64)]
    """Visits in one sample of a model that reads series; other models read one visit."""
    spacing: Spacing | tuple[Spacing, Spacing, Spacing] | None
    """Voxel edge in mm, or edges (D, H, W); None keeps each scan's own."""
    patch: tuple[Edge, Edge, Edge]
    """Voxels (D, H, W). Segmentation: a training patch, and the window that evaluation slides. Grading: the central
    block of every scan; W counts axial slices."""
    validation: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of a site's patients kept for validation, by a hash of the id."""
    test: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Fraction kept for a test at the end, by the same hash; 0: only whom the data set declares. None: no test."""
    split_seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    """Salt of that hash; fixed for a study."""

    def __post_init__(self) -> None:
        for key, names in (("modalities", self.modalities), ("regions", self.regions)):
            if len(set(names)) < len(names):
                raise ValueError(f"data.{key}={','.join(names)}: names one twice; each is a channel of its own")
        edges = self.spacing if isinstance(self.spacing, tuple) else (self.spacing or 1.0,) * 3
        if self.validation + (self.test or 0.0) >= 1:
            raise ValueError(
                f"data.test={self.test:g} with data.validation={self.validation:g}: together they must be below 1, for "
                "the others train"
            )
        if prod(edges) < SMALLEST_VOXEL:
            shown = ",".join(f"{edge:g}" for edge in edges)
            raise ValueError(f"data.spacing={shown}: a voxel below {SMALLEST_VOXEL} mm3; 1.0 is usual")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Strict):
    """How training patches are changed, each time anew; 0 turns a change off. Evaluation sees scans as they are.

    flip and dropout are chances, and dropout_of has names. The others are the largest strength: a patch has each with
    probability `chance`, then as strong as is drawn.
    """

    chance: Fraction = 0.3
    """Of a patch to have a change that is on: rotation, scaling, noise, bias and gamma, each by itself."""
    flip: Fraction = 0.0
    """Chance of a mirror along each of D, H and W; of segmentation, for grading mirrors always."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Degrees around each axis."""
    scaling: Annotated[float, Field(ge=0, le=1)] = 0.0
    """0.1 makes a patch's content 1/1.1 to 1.1 times as large."""
    noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Deviation of Gaussian noise, in units of the prepared image: for segmentation, deviations of the brain."""
    bias: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0.3 makes places 1/1.3 to 1.3 times as bright, smoothly, as a coil does."""
    gamma: Annotated[float, Field(ge=0, le=10)] = 0.0
    """0.3 gives contrast an exponent of 1/1.3 to 1.3."""
    dropout: Fraction = 0.0
    """Chance of each modality to be missing; one always stays."""
    dropout_of: Annotated[tuple[Name, ...], Field(max_length=16), FailFast()] = ()
    """Modalities that may be missing so, as those that a site lacks. Empty: any."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Strict):
    """The local loop."""

    steps: Annotated[int, Field(gt=0, le=1_000_000)] | None
    """Optimiser steps a round."""
    epochs: Annotated[int, Field(gt=0, le=10_000)] | None
    """Passes over the site's patients a round, instead of steps."""
    batch: Annotated[int, Field(gt=0, le=4096)]
    """Samples a step."""
    lr: PositiveFloat
    """Learning rate; `gliofed.shared.algorithms.optimizers.rate_of` has that of a round."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Decoupled with adamw, part of the gradient with sgd."""
    clip: PositiveFloat | None
    """Largest L2 norm of a step's gradient."""
    foreground: Fraction
    """Fraction of patches centred on a voxel of the mask; segmentation only."""
    foreground_by: Literal["voxel", "region"] = "voxel"
    """How that voxel is drawn: among all of the mask; or among those of a region that is drawn first, each region that
    the patient has with the same chance, as in nnU-Net."""
    class_weights: Literal["balanced"] | tuple[PositiveFloat, PositiveFloat] | None
    """Weights of LGG and HGG in the loss of grading; balanced: each site's own, so that both count the same there."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """auto: bf16 or fp16 on a GPU that has it, fp32 on a CPU. On a GPU fp32 multiplies in TF32."""
    augment: AugmentConfig = AugmentConfig()

    def local_steps(self, patients: int) -> int:
        """Optimiser steps that a site with so many training patients takes in a round."""
        return self.steps or (self.epochs or 0) * -(-patients // self.batch)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"train.steps={self.steps} with train.epochs={self.epochs}: give one of them and null for the other"
            )


@dataclass(frozen=True, kw_only=True)
class RoundConfig(Strict):
    """How the server asks."""

    deadline: Seconds
    """Seconds a site has for one request."""
    join: Seconds
    """Seconds the server waits for the expected sites, or the quorum, to be there."""
    quorum: Annotated[int, Field(gt=0, le=MOST_SITES)]
    """Updates that must count, else the round fails."""
    evaluate_every: Annotated[int, Field(ge=0, le=MOST_ROUNDS)]
    """Sites evaluate the new model every so many rounds, and after the last; 0: never."""
    retry: Seconds | None = None
    """Seconds without an answer after which a site, on another machine, is asked whether it is free: then its answer
    was lost, and it is asked again. None: a tenth of the deadline."""
    expected: Annotated[tuple[SiteName, ...], Field(max_length=MOST_SITES), FailFast()]
    """Sites that take part: one that is away is named missing, and any other is sent nothing. Empty: whoever comes."""
    sample: Annotated[float, Field(gt=0, le=1)] | None = None
    """Fraction of the sites that train in a round, drawn anew for each; all evaluate. None: all train."""

    def __post_init__(self) -> None:
        if twice := [name for name, number in Counter(self.expected).items() if number > 1]:
            raise ValueError(f"round.expected: names {twice[0]} twice; name each site once")

    def training(self, sites: int) -> int:
        """How many of so many sites train in a round.

        >>> config = RoundConfig(deadline=1, join=1, quorum=1, evaluate_every=1, expected=(), sample=0.1)
        >>> [config.training(sites) for sites in (1, 10, 11, 30)]  # 0.1 * 30 is above 3 in binary
        [1, 1, 2, 3]
        """
        return sites if self.sample is None else math.ceil(self.sample * sites - 1e-9)


@dataclass(frozen=True, kw_only=True)
class FoldConfig(Strict):
    """How the updates of a round become one."""

    name: Name
    """A key of `gliofed.server.round.fold.FOLDS`."""
    clip: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = 1.5
    """Largest size of an update, in medians of the round (`gliofed.server.round.clip`); what is larger is clipped.
    None: any size counts, only to study attacks. privacy=central has its own clip instead."""
    max_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Largest share of one site's weight, where three sites or more count; of folds that weigh by patients."""
    hostile: Annotated[float, Field(ge=0, lt=0.5)] = 0.25
    """Share of the sites that may be hostile: trimmed_mean drops so many values at each end, krum expects so many."""


@dataclass(frozen=True, kw_only=True)
class StrategyConfig(Strict):
    """The server's optimiser on the folded update (Reddi et al. 2021, arXiv:2003.00295)."""

    name: Name
    """A key of `gliofed.server.round.strategies.STRATEGIES`."""
    lr: PositiveFloat
    """1 with fedavg is plain averaging."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of fedavgm and nesterov; the first moment's decay of fedadam and fedyogi."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """Second moment's decay of fedadam and fedyogi."""
    tau: PositiveFloat = 1e-3
    """Adaptivity of fedadam and fedyogi: added to the root of the second moment."""
    average: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Decay of a moving average of the model over the rounds, which sites evaluate and the run leaves; training goes on
    from the model itself. None: no average."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(Strict):
    """What the federation agrees on; travels to every site as one JSON."""

    seed: Seed
    """Of the first weights and, with site and round, of every patch."""
    task: TaskName
    """A key of `gliofed.shared.tasks.TASKS`."""
    rounds: Annotated[int, Field(gt=0, le=MOST_ROUNDS)]
    codec: Annotated[str, key_of(CODECS)]
    """How weights, updates and what goes beside them travel."""
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    round: RoundConfig
    fold: FoldConfig
    strategy: StrategyConfig
    privacy: PrivacyConfig = NOT_PRIVATE
    algorithm: AlgorithmConfig = FEDAVG
    optimizer: OptimizerConfig = ADAMW
    init: Annotated[str, matching("[0-9a-f]{64}", "must be a SHA-256 in hex")] | None = None
    """SHA-256 of the file of weights that the run starts from. None: its weights follow from the seed."""

    def __post_init__(self) -> None:
        for forbidden, sentence in APART:
            if forbidden(self):
                raise ValueError(sentence if isinstance(sentence, str) else sentence(self))

    @property
    def private(self) -> bool:
        """Whether what a site sends must be covered by a budget, which the site's ledger keeps."""
        return MECHANISMS[self.privacy.mechanism].noise == "site"

    @cached_property  # each message asks for it several times
    def as_json(self) -> str:
        """One line, keys sorted: equal configs are equal strings."""
        return json.dumps(as_values(self), sort_keys=True, separators=(",", ":"))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the JSON, in hex."""
        return hashlib.sha256(self.as_json.encode()).hexdigest()


LATER = frozenset(
    {
        "RunConfig.algorithm",
        "AlgorithmConfig.control",
        "RunConfig.optimizer",
        "RunConfig.init",
        "StrategyConfig.average",
        "RoundConfig.sample",
        "ModelConfig.dropout",
        "ModelConfig.deep_supervision",
        "ModelConfig.difference",
        "DataConfig.test",
        "DataConfig.missing",
        "TrainConfig.foreground_by",
        "AugmentConfig.dropout_of",
    }
)
"""Fields that came later: at their defaults they are not in the JSON, so that a run of before them keeps its hash."""


def as_values(part: Any) -> dict[str, Any]:
    """The fields of a dataclass and of those in it, as JSON has them: without LATER ones at their defaults."""
    return {
        field.name: as_values(value) if is_dataclass(value := getattr(part, field.name)) else value
        for field in fields(part)
        if f"{type(part).__name__}.{field.name}" not in LATER or getattr(part, field.name) != field.default
    }
