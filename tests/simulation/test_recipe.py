"""What docs/models.md says of experiment=brats and brats_small, and of folders without any."""

from dataclasses import asdict, replace

import pytest
from hydra import compose, initialize_config_module
from small_run import CONFIGS, as_given

from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError
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


FOLDER = ("model=unet", "data=folder", "data.root=x", "data.labels=brats2020")


def test_a_folder_is_trained_by_the_recipe_where_nothing_is_said() -> None:
    """But for how long, and for what a model alone has: so much is the user's to say."""
    large, plain = recipe("experiment=brats"), recipe(*FOLDER)
    assert plain.train == replace(large.train, steps=plain.train.steps, lr=plain.train.lr)
    assert plain.optimizer == large.optimizer
    assert plain.model == replace(large.model, deep_supervision=None)
    assert plain.data == replace(large.data, validation=plain.data.validation)


@pytest.mark.parametrize("config", ["simulation", "federation"])
def test_what_is_said_wins_over_the_recipe(config: str) -> None:
    words = ("augment=none", "optimizer=adamw", "optimizer.schedule=cosine", "model.preset=tiny", "data=folder")
    with initialize_config_module("gliofed.configs", version_base="1.3"):
        values = compose(config, list(words))
    assert (values.optimizer.schedule, values.model.preset, values.train.augment.flip) == ("cosine", "tiny", 0)
    assert values.train.foreground_by == "region" and values.train.lr == 0.003


def test_every_choice_of_data_has_a_recipe() -> None:
    """Hydra looks for the one of its name."""
    data, recipes = ({file.stem for file in (CONFIGS / group).glob("*.yaml")} for group in ("data", "recipe"))
    assert data | {"none"} == recipes


def test_made_up_data_is_trained_plainly() -> None:
    run = recipe("model=unet", "data=phantom")
    assert (run.model.preset, run.optimizer.schedule, run.train.foreground_by) == ("demo", "constant", "voxel")
    assert not any(value for key, value in asdict(run.train.augment).items() if key != "chance")


@pytest.mark.parametrize("mechanism", ["dp_sgd", "local_update"])
def test_a_folder_is_trained_with_privacy_too(mechanism: str) -> None:
    """Private steps have a rate of their own, and refuse an optimiser's: the recipe's is nobody's choice."""
    assert recipe(*FOLDER, f"privacy={mechanism}").privacy.mechanism == mechanism
    with pytest.raises(ConfigError, match="of optimizer with privacy=dp_sgd: a private step has its own SGD"):
        recipe(*FOLDER, "privacy=dp_sgd", "optimizer.schedule=cosine")


@pytest.mark.slow
@pytest.mark.parametrize("config", ["simulation", "federation"])
def test_a_model_may_want_a_rate_of_its_own_with_an_optimiser(config: str) -> None:
    """With the usual one of Muon cnn_lstm learned next to nothing before it fell; another optimiser keeps its own."""
    rates = {
        ("model=unet",): 0.05,
        ("model=cnn_lstm",): 0.01,
        ("optimizer=adamw", "model=cnn_lstm"): 0.003,
        ("model=cnn_lstm", "train.lr=0.03"): 0.03,
        ("experiment=cnn_lstm_cnn3",): 0.01,
        ("experiment=cnn_lstm_cnn3", "optimizer=adamw"): 0.003,
    }
    with initialize_config_module("gliofed.configs", version_base="1.3"):
        assert {words: compose(config, list(words)).train.lr for words in rates} == rates


def test_an_experiment_s_changes_of_patches_can_be_turned_off() -> None:
    plain = recipe("experiment=cnn_lstm_cnn3", "augment=none").train.augment
    assert plain == recipe("model=cnn_lstm", "data=phantom").train.augment
