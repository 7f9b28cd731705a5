"""What docs/models.md says of experiment=brats and brats_small."""

from dataclasses import replace

from small_run import as_given

from gliofed.shared.config import RunConfig
from gliofed.simulation.settings import parse_settings


def recipe(*words: str) -> RunConfig:
    return parse_settings(as_given(*words))[0]


def test_the_small_recipe_is_the_large_one_but_for_sizes() -> None:
    """Else a comparison that two cores can make would say nothing about what a GPU is meant to run."""
    large, small = recipe("experiment=brats"), recipe("experiment=brats_small")
    assert small.model == replace(large.model, preset="demo")
    assert small.train == replace(large.train, steps=small.train.steps, lr=small.train.lr)
    assert small.optimizer == large.optimizer
    assert small.data == replace(large.data, spacing=2.0, patch=(48, 48, 48))


def test_the_recipe_is_for_other_models_and_folders_too() -> None:
    """The reference gets all of it, and so do a hospital's own scans, which are then resampled."""
    small = recipe("experiment=brats_small")
    anchor = recipe("experiment=brats_small", "model=monai_dynunet")
    assert replace(anchor, model=small.model) == small
    assert anchor.model == replace(small.model, name="monai_dynunet")
    folder = recipe("experiment=brats_small", "data=folder", "data.root=x", "data.labels=brats2020")
    assert replace(folder.data, validation=small.data.validation) == small.data
