"""Configurations check themselves, with the key and the value in the sentence."""

import json
from collections.abc import Callable

import pytest

from gliofed.shared.codecs import CODECS, Codec
from gliofed.shared.config import PRESETS, RunConfig, TrainConfig
from gliofed.shared.mechanisms import MECHANISMS, Mechanism
from gliofed.shared.parse import ConfigError, is_site_name, parse
from gliofed.shared.site_config import PolicyConfig, SiteConfig

SITE = {"name": "a", "root": "r", "labels": "l", "work": "w"}


def test_json_there_and_back_is_the_same_run(run_config: Callable[..., RunConfig]) -> None:
    run = run_config()
    assert parse(RunConfig, run.as_json) == run
    assert parse(RunConfig, run.as_json).hash == run.hash


def test_hash_tells_runs_apart(run_config: Callable[..., RunConfig]) -> None:
    assert run_config().hash != run_config("train.lr=0.1").hash


def test_hash_does_not_depend_on_the_order_of_keys(run_config: Callable[..., RunConfig]) -> None:
    values = json.loads(run_config().as_json)
    assert parse(RunConfig, dict(reversed(values.items()))).hash == run_config().hash


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "gpu"}, "site.device=gpu: must be auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:01"}, "site.device=cuda:01: must be auto, cpu, cuda or cuda:N"),  # PyTorch knows no such
        ({"policy": {"hours": "8-10"}}, "site.policy.hours=8-10: must be two times of day, as 20:00-06:00"),
        ({"name": "../etc"}, "site.name=../etc: must be 1 to 64 letters, digits"),
        ({"colour": 1}, "site.colour: no such key"),
        ({"threads": 0}, "site.threads=0: must be greater than 0"),
        ({"workers": -1}, "site.workers=-1: must be greater than or equal to 0"),
        ({"policy": {"min_patients": "many"}}, "site.policy.min_patients=many"),
        ({"threads": True}, "site.threads=True: must be a number"),  # Pydantic takes it for 1
        ({"policy": {"max_steps": False}}, "site.policy.max_steps=False: must be a number"),
        ({"policy": {"count_noise": True}}, "site.policy.count_noise=True: must be a number"),
        ({"check": {"size": [True, 4]}}, r"site.check.size.0=True: must be a number"),
        ({"patients": "P7"}, r"site.patients=P7: must be a list, in brackets$"),
        ({"check": {"size": [1, 2, 3]}}, "must have at most 2 items$"),
    ],
)
def test_a_fault_names_key_and_value(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(SiteConfig, SITE | change, "site")


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"site\.root: missing; site\.labels: missing"):
        parse(SiteConfig, {"name": "a", "work": "w"}, "site")


def test_a_sentence_is_short_whatever_is_wrong() -> None:
    """Long values and many faults are cut: a hostile server's words go into a log, and these here to a person."""
    with pytest.raises(ConfigError) as long:
        parse(SiteConfig, SITE | {"name": "x" * 10**6} | {f"key{number}": 1 for number in range(1000)}, "site")
    assert len(str(long.value)) < 1000 and str(long.value).endswith("and 993 more faults")
    with pytest.raises(ConfigError, match=r"^site\.device=a number of thousands of digits: must be a valid string$"):
        parse(SiteConfig, SITE | {"device": 10**5000}, "site")


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (None, None)])
def test_steps_or_epochs(run_config: Callable[..., RunConfig], steps: int | None, epochs: int | None) -> None:
    train = json.loads(run_config().as_json)["train"] | {"steps": steps, "epochs": epochs}
    with pytest.raises(ConfigError, match="give one of them"):
        parse(TrainConfig, train)


def test_local_steps_of_epochs_count_the_last_short_batch(run_config: Callable[..., RunConfig]) -> None:
    """5 patients in batches of 2 are 3 steps; twice over, 6."""
    assert run_config("train.steps=null", "train.epochs=2", "train.batch=2").train.local_steps(5) == 6


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a b", "x" * 65, "a\n"])
def test_no_name_escapes_its_folder(name: str) -> None:
    assert not is_site_name(name)


@pytest.mark.parametrize(
    ("registry", "entry", "key", "of_policy"),
    [
        (CODECS, Codec("bfloat16", lambda tensor: (tensor.bfloat16(), 1.0)), "codec", "codecs"),
        (MECHANISMS, Mechanism(noise=None, unit=None), "privacy.mechanism", "mechanisms"),
        (PRESETS, (4, 8), "model.preset", None),
    ],
)
def test_a_new_entry_of_a_registry_is_known_to_every_configuration(
    monkeypatch: pytest.MonkeyPatch,
    run_config: Callable[..., RunConfig],
    registry: dict[str, object],
    entry: object,
    key: str,
    of_policy: str | None,
) -> None:
    """No second list has to learn the name; and a wrong name is answered with all that there are."""
    group, _, field = key.rpartition(".")
    values = json.loads(run_config().as_json)
    (values[group] if group else values)[field] = "new"
    sentence = f"{key}=new: must be {', '.join(map(repr, [*registry][:-1]))} or {[*registry][-1]!r}"
    with pytest.raises(ConfigError) as refused:
        parse(RunConfig, values)
    assert str(refused.value) == sentence
    monkeypatch.setitem(registry, "new", entry)
    parse(RunConfig, values)
    if of_policy:
        parse(PolicyConfig, {of_policy: ["new"]})
