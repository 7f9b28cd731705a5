"""What Hydra finds wrong is said in words of ours: its own advice, to append the key, leads to the next error."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import assume, example, given
from hypothesis.strategies import sampled_from, text
from omegaconf import OmegaConf

from gliofed.shared.hydra_words import message, quoted, sentence

SAID = {
    ("federation", "ronds=3"): "ronds: no such setting (did you mean rounds?)",
    ("federation", "train.augment.flp=1"): "train.augment.flp: no such setting (did you mean train.augment.flip?)",
    ("federation", "sites=3"): "sites: no such setting",
    (
        "federation",
        "model.iterations=3",
    ): "model.iterations: no such setting; model has name, preset, dropout, deep_supervision",  # of unet
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


def test_another_privacy_has_settings() -> None:
    with initialize_config_module("gliofed.configs", version_base="1.3"), pytest.raises(HydraException) as told:
        compose("federation", ["privacy=dp_sgd", "privacy.epsilom=3"])
    assert message(told.value) == "privacy.epsilom: no such setting (did you mean privacy.epsilon?)"


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
