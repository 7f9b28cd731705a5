"""A run from composed settings: what gliofed-server run and gliofed-simulate have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from gliofed.server.round.budget import noise_of_a_sum
from gliofed.server.round.fold import FOLDS
from gliofed.server.round.strategies import STRATEGIES
from gliofed.shared.config import DataConfig, RunConfig
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.sizes import outline
from gliofed.shared.wording import quantity

GROUPS = ("model", "data", "train", "round", "fold", "strategy", "privacy")


def check_groups(values: Mapping[str, Any], command: str) -> None:
    """Refuse what Hydra takes and no run can be made of. Raises ConfigError."""
    for key in GROUPS:
        if key not in values:
            raise ConfigError(f"{key}: missing; finish a run of an older version of gliofed with that version")
        if not isinstance(values[key], Mapping):
            raise ConfigError(f"{key}={values[key]}: must be a group of settings; see {command} --cfg job")
    if values["privacy"].get("mechanism") == "none" and "epsilon" in values["privacy"]:
        raise ConfigError(
            f"privacy.epsilon={values['privacy']['epsilon']}: with privacy=none; give privacy=dp_sgd as well"
        )


def without_averages(values: Mapping[str, Any]) -> str | None:
    """Say, as its words, which of the composed settings leaves moments that nobody chose fresh and not averaged."""
    usual = {"fold": ("name", "mean"), "privacy": ("mechanism", "none")}
    found = {part: values[part][key] for part, (key, _) in usual.items()}
    if values["optimizer"].get("momentum") == 0:
        return "optimizer.momentum=0"
    return next((f"{part}={found[part]}" for part, (_, value) in usual.items() if found[part] != value), None)


def notes_of(values: Mapping[str, Any]) -> list[str]:
    """What a user should know of choices that were left to the run."""
    if "optimizer" not in values:  # as in a run of before the group
        return ["optimizer=adamw optimizer.moments=fresh: the settings name none"]
    if values["optimizer"].get("moments", "fresh") is None and (why := without_averages(values)):
        return [f"optimizer.moments=fresh: they are not averaged with {why}"]
    return []


def parse_run(values: Mapping[str, Any], sites: Sequence[str]) -> RunConfig:
    """Take the run out of composed settings and try out what only building can tell; `sites` are there to be expected.

    Raises ConfigError.
    """
    given = {field.name: values[field.name] for field in fields(RunConfig) if field.name in values}
    shared = {field.name for field in fields(DataConfig)}
    given["data"] = {key: value for key, value in values["data"].items() if key in shared}
    if "moments" in (optimizer := given.get("optimizer") or {}) and optimizer["moments"] is None:
        given["optimizer"] = {**optimizer, "moments": "fresh" if without_averages(values) else "averaged"}
    if not given["round"]["expected"]:
        given["round"] = given["round"] | {"expected": list(sites)}
    run = parse(RunConfig, given)
    if run.strategy.name not in STRATEGIES:
        raise ConfigError(f"strategy.name={run.strategy.name}: unknown; known are {', '.join(STRATEGIES)}")
    if run.fold.name not in FOLDS:
        raise ConfigError(f"fold.name={run.fold.name}: unknown; known are {', '.join(FOLDS)}")
    if run.round.quorum > (most := len(run.round.expected)):
        raise ConfigError(f"round.quorum={run.round.quorum}: more than the {quantity(most, 'site')} of round.expected")
    try:
        outline(run)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if run.privacy.mechanism == "central":
        noise_of_a_sum(run)
    return run
