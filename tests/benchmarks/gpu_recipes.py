"""Steps on a GPU with one thing changed at a time: what each ingredient is worth."""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from gliofed.shared.algorithms.muon import Muon
from gliofed.shared.data.samples import Batch
from gliofed.shared.models.unet import GroupNorm
from tests.benchmarks.gpu_steps import Cells, Scale, batch_of, cells, flags, subject_of
from tests.benchmarks.measure import Figures, ran_out, take_turns
from tests.benchmarks.subjects import Subject


def wide_norm(norm: GroupNorm, x: Tensor) -> Tensor:
    """With an output in fp32, as autocast on a GPU has it."""
    return GroupNorm.forward(norm, x.float())


def low_norm(norm: GroupNorm, x: Tensor) -> Tensor:
    """In the precision of its input, sums aside; autocast doesn't know this function, and so leaves it alone."""
    x, (images, channels) = x.contiguous(), x.shape[:2]
    weight, bias = (each.to(x.dtype) for each in (norm.weight, norm.bias))
    voxels = x.shape[2:].numel()
    return torch.native_group_norm(x, weight, bias, images, channels, voxels, norm.num_groups, norm.eps)[0]


@dataclass(frozen=True)
class Recipe:
    """How a step is taken: as the product does, but for one thing."""

    dtype: torch.dtype = torch.bfloat16
    tf32: bool = True
    tuning: bool = True
    optimizer: Callable[[list[nn.Parameter]], Optimizer] = lambda weights: Muon(weights, 1e-3, 0.01, momentum=0.9)
    channels_last: bool = False
    norms: Callable[[GroupNorm, Tensor], Tensor] | None = None
    """Instead of GroupNorm.forward."""
    compiled: bool = False


RECIPES = {
    "as the product: bf16, tuned, Muon": Recipe(),
    "fp32, as TF32": Recipe(dtype=torch.float32),
    "fp32, no TF32": Recipe(dtype=torch.float32, tf32=False),
    "convolutions not tuned": Recipe(tuning=False),
    "fused AdamW": Recipe(optimizer=partial(AdamW, lr=1e-4, fused=True)),
    "AdamW with a kernel for each operation": Recipe(optimizer=partial(AdamW, lr=1e-4, foreach=True)),
    "channels last": Recipe(channels_last=True),
    "maps after norms in fp32, as autocast has them": Recipe(norms=wide_norm),
    "norms in bf16": Recipe(norms=low_norm),
    "norms in bf16, channels last": Recipe(norms=low_norm, channels_last=True),
    "torch.compile": Recipe(compiled=True),
}


def ingredients(
    scale: Scale, device: torch.device, names: tuple[str, ...] = ("unet", "clstm_unet3d")
) -> Iterator[Cells]:
    """Steps of two models with one thing changed at a time; compiled ones last, for compiling takes minutes."""
    for compiled in (False, True):
        for name in names:
            recipes = {recipe: each for recipe, each in RECIPES.items() if each.compiled == compiled}
            together = {recipe: each for recipe, each in recipes.items() if each.tuning}
            figures = in_turn(name, together, scale, device)
            if device.type == "cuda":  # in one process cuDNN's choice for a shape stays, however it was made
                apart = {recipe: each for recipe, each in recipes.items() if not each.tuning}
                torch.cuda.empty_cache()
                with multiprocessing.get_context("spawn").Pool(1) as fresh:
                    figures |= fresh.apply(in_turn, (name, apart, scale, device)) if apart else {}
            for recipe, found in figures.items():
                subject = by_recipe(subject_of(name, scale.preset, scale.sizes), recipes[recipe])
                precision = "bf16" if recipes[recipe].dtype == torch.bfloat16 else "fp32"
                yield name, recipe, *cells(found, subject, scale.steps, device, precision)


def in_turn(name: str, recipes: Mapping[str, Recipe], scale: Scale, device: torch.device) -> dict[str, Figures]:
    """Measure the recipes side by side."""
    subject = subject_of(name, scale.preset, scale.sizes)
    batch = batch_of(subject, device)
    works, failed = {}, {}
    for recipe, each in recipes.items():
        try:
            works[recipe] = steps_of(by_recipe(subject, each), each, batch, scale.steps)
            works[recipe]()
        except RuntimeError as error:  # what PyTorch refuses costs no other recipe
            traceback.print_exc()
            works.pop(recipe, None)
            failed[recipe] = Figures(failed="out of memory" if ran_out(error) else type(error).__name__)
    return take_turns(works, scale.repeats, device) | failed


def by_recipe(subject: Subject, recipe: Recipe) -> Subject:
    """The same with the recipe's norms."""

    def build() -> nn.Module:
        model = subject.build()
        for module in model.modules():
            if recipe.norms and isinstance(module, GroupNorm):
                module.forward = partial(recipe.norms, module)  # type: ignore[method-assign]
        return model

    return replace(subject, build=build)


def steps_of(subject: Subject, recipe: Recipe, batch: Batch, steps: int) -> Callable[[], None]:
    """Steps as `train_one_round` takes them, by a recipe."""
    device = batch.image.device
    model = subject.build().to(device).train()
    layout = torch.channels_last_3d if recipe.channels_last and batch.image.dim() == 5 else torch.contiguous_format
    image = batch.image.to(memory_format=layout)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last_3d)
    backend = "inductor" if device.type == "cuda" else "eager"
    forward = torch.compile(model, backend=backend) if recipe.compiled else model
    optimizer = recipe.optimizer([*model.parameters()])

    def work() -> None:
        flags(tf32=recipe.tf32, tuning=recipe.tuning)
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, recipe.dtype, enabled=recipe.dtype != torch.float32):
                logits = forward(image)
            subject.loss(logits, batch.target).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 12.0)
            optimizer.step()
        flags(tf32=True)

    return work
