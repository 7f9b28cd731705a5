"""Settings of changes: none is the default, and a fault names itself."""

import json
from dataclasses import fields

import pytest
from small_patches import OFF

from gliofed.shared.config import AugmentConfig, RunConfig
from gliofed.shared.parse import ConfigError, parse


def test_settings_reach_the_run_and_none_is_the_default(run_config):
    assert run_config().train.augment == OFF
    usual = run_config("augment=usual", "train.augment.noise=0.2").train.augment
    assert usual.flip == 0.5 and usual.noise == 0.2
    strengths = [field.name for field in fields(AugmentConfig) if field.name not in ("chance", "dropout", "dropout_of")]
    assert all(getattr(usual, name) > 0 for name in strengths)
    assert parse(RunConfig, run_config("augment=usual").as_json).train.augment.flip == 0.5


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.augment.noise=-1", r"train\.augment\.noise=-1: must be greater"),
        ("train.augment.scaling=inf", r"train\.augment\.scaling=inf: must be less"),
        ("+train.augment.colour=1", r"train\.augment\.colour: no such key"),
        ("train.augment=usual", r"train\.augment=usual: must be a group of settings"),
        ("train.augment.dropout_of=[flair]", r"dropout_of: flair is none of data\.modalities=t1;"),
        ("train.augment.dropout_of=[t1]", r"dropout_of with train\.augment\.dropout=0: nothing would be left out"),
        ("train.augment.dropout_of=[t1,t1]", r"dropout_of=t1,t1: names one twice"),
        ("train.augment.dropout=1", r"dropout with one of data\.modalities: one image always stays"),
        ("train.augment.noise=1e20", r"train\.augment\.noise=1e\+?20: must be less"),
    ],
)
def test_a_fault_names_the_change(run_config, setting, words):
    with pytest.raises(ConfigError, match=words):
        run_config(setting)


def test_settings_without_changes_are_read_as_off(run_config):
    """What a server of before sends."""
    values = json.loads(run_config("train.augment.noise=0.2").as_json)
    del values["train"]["augment"]
    assert parse(RunConfig, values).train.augment == OFF
