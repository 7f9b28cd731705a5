"""What Hydra finds wrong is said in words of ours: its own advice, to append the key, leads to the next error."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import assume, example, given
from hypothesis.strategies import sampled_from, text
from omegaconf import OmegaConf

from gliofed.shared.hydra_words import check_words, message, quoted, sentence
from gliofed.shared.parse import ConfigError

SAID = {
    ("federation", "ronds=3"): "ronds: no such setting (did you mean rounds?)",
    ("federation", "train.augment.flp=1"): "train.augment.flp: no such setting (did you mean train.augment.flip?)",
    ("federation", "sites=3"): "sites: no such setting",
    (
        "federation",
        "model.iterations=3",
    ): "model.iterations: no such setting; model has name, preset, dropout, deep_supervision; it is of model=lstm_unet",
    (
        "federation",
        "strategy.momentum=0.5",
    ): "strategy.momentum: no such setting; strategy has name, lr, average; it is of strategy="
    "fedadam, fedavgm, fedyogi, nesterov",
    ("federation", "rounds"): "rounds: cannot be read; give KEY=VALUE, and close each bracket and quote",
    (
        "federation",
        "round.expected=[a",
    ): "round.expected=[a: cannot be read; give KEY=VALUE, and close each bracket and quote",
    (
        "federation",
        "model=unet,cnn_lstm",
    ): "model=unet,cnn_lstm: several values; a list has brackets, and gliofed-simulate -m makes a run with each",
    ("federation", "rounds.x=3"): "rounds.x: no such setting",
    ("federation", "data=fold"): "data=fold: unknown; there are folder, mock, mock_full, phantom",
    ("federation", "privacy.epsilon=3"): "privacy.epsilon: privacy=none has no settings; give privacy=dp_sgd as well",
    ("check", "data.rot=x"): "data.rot: no such setting (did you mean data.root?)",
    ("predict", "modl=x"): "modl: no such setting (did you mean model?)",
    ("predict", "data=folder"): "data: no choice of this command",
}


@pytest.mark.parametrize(("config", "word"), SAID, ids=" ".join)
def test_a_mistyped_word(config: str, word: str) -> None:
    with initialize_config_module("gliofed.configs", version_base="1.3"), pytest.raises(HydraException) as told:
        compose(config, [word])
    assert message(told.value) == SAID[config, word]
    assert sentence(told.value, "gliofed") == f"{SAID[config, word]}; see gliofed --help"


def test_which_choice_has_a_setting() -> None:
    """Also of a group whose files set others too: there it is not at the left."""
    with initialize_config_module("gliofed.configs", version_base="1.3"), pytest.raises(HydraException) as told:
        compose("federation", ["optimizer=adamw", "optimizer.momentum=0.9"])
    assert message(told.value).endswith("; it is of optimizer=muon, sgd")


def test_another_privacy_has_settings() -> None:
    with initialize_config_module("gliofed.configs", version_base="1.3"), pytest.raises(HydraException) as told:
        compose("federation", ["privacy=dp_sgd", "privacy.epsilom=3"])
    assert message(told.value) == "privacy.epsilom: no such setting (did you mean privacy.epsilon?)"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("+foo=1", r"\+foo=1: adds a setting, .* give foo=1"),
        ("++strategy.momentum=0.9", "give strategy.momentum=0.9"),
        ("model=null", "model=null: must be the name of a choice"),
        ("fold=5", "fold=5: must be the name of a choice"),
    ],
)
def test_what_hydra_would_take_or_not_name(word: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_words(["rounds=2", word])


def test_words_that_are_no_group_are_left_to_hydra() -> None:
    """A name that no file can have, too."""
    check_words(["rounds=null", "out=/tmp", "--cfg", "job", "=", "a" * 300 + "=null"])


@given(text(sampled_from("=,([{$}])\\'\"#&;!~ :/.%üx王\n\t"), max_size=12) | text())
@example("${rounds}")
@example("a\\")
@example("'a'")
@example(r"\'\${x}\\")
def test_what_follows_a_path_is_a_path(path: str) -> None:
    """Hydra's grammar and OmegaConf's interpolation have a meaning for most signs; here they are letters."""
    assume(path not in ("", "null", "???"))
    word = OverridesParser.create().parse_override(quoted(f"out={path}", {"out": "out"}))
    assert OmegaConf.to_container(OmegaConf.create({"out": word.value()}), resolve=True) == {"out": path}
