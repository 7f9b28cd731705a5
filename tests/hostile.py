"""Requests that a server sends to do harm, what a hospital answers, and what memory that takes.

As a program it asks a hospital in this very process, and prints as JSON what came of each request.
"""

import gc
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from safetensors.torch import save

from gliofed.client.app import make_client_app
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.grid import LocalGrid
from gliofed.simulation.settings import parse_settings
from tests.benchmarks.measure import give_back_freed_memory, measure_once, resident
from tests.small_run import composed

CPU = torch.device("cpu")
CLSTM = {"model.name": "clstm_unet3d"}
DP_SGD = {"privacy.mechanism": "dp_sgd"}
MANY = [f"m{number}" for number in range(100_000)]
VALUES: tuple[dict[str, Any], ...] = (
    CLSTM | {"model.layers": 10**7},
    CLSTM | {"model.layers": 2000},
    CLSTM | {"model.layers": 17},
    CLSTM | {"data.window": 10**6},
    CLSTM | {"data.window": 64, "data.patch": [256, 256, 128]},
    {"model.name": "vnet"},
    {"model.name": "cnn_lstm"},
    {"model.name": "x" * 100_000},
    {"model.name": ["unet"]},
    {"model.preset": "huge"},
    {"model.layers": 2},
    {"model.name": "lstm_unet", "model.iterations": 10**9},
    {"model.name": "lstm_unet", "model.iterations": 64, "train.batch": 64, "data.patch": [64, 64, 64]},
    {"model.encoder": "resnet"},
    {"model": None},
    {"model": []},
    {"data.patch": [1024, 1024, 1024]},
    {"data.patch": [10**6, 10**6, 10**6]},
    {"data.patch": [0, 16, 16]},
    {"data.patch": [16, 16]},
    {"data.patch": [16] * 50_000},
    {"data.modalities": [f"m{number}" for number in range(17)]},
    {"data.modalities": MANY},
    {"data.modalities": [1] * 50_000},
    {"data.modalities": ["t1", "t1"]},
    {"data.modalities": []},
    {"data.regions": MANY},
    {"data.regions": ["x" * 100_000]},
    {"data.spacing": 1e-3},
    {"data.spacing": [0.1, 0.1, 0.1]},
    {"data.spacing": 1e300},
    {"data.spacing": [0.1, 0.1, 100.0], "train.augment.rotation": 180.0, "data.patch": [64, 64, 64]},
    {"data.validation": 1.0},
    {"data.split_seed": 10**400},
    {"data.split_seed": 10**4000},
    {"train.steps": 10**9},
    {"train.epochs": 1},
    {"train.steps": None, "train.epochs": 10**9},
    {"train.batch": 100_000},
    {"train.batch": 4096, "data.patch": [128, 128, 128]},
    {"train.lr": float("nan")},
    {"train.lr": float("inf")},
    {"train.lr": -1.0},
    {"train.weight_decay": float("-inf")},
    {"train.precision": "fp64"},
    {"train.augment.rotation": 1e9},
    {"train.augment": None},
    {"round.deadline": 1e300},
    {"round.deadline": float("inf")},
    {"round.join": 0.0},
    {"round.quorum": 10**9},
    {"round.expected": MANY},
    {"round.expected": ["../up"]},
    {"round.expected": "site-1"},
    {"fold.clip": float("nan")},
    {"strategy.name": "x" * 100_000},
    DP_SGD | {"privacy.patches": 10**6},
    DP_SGD | {"privacy.patches": 256, "data.patch": [128, 128, 128]},
    DP_SGD | {"privacy.batch": 1e9},
    DP_SGD | {"privacy.epsilon": float("nan")},
    DP_SGD | {"train.steps": None, "train.epochs": 1},
    {"privacy.mechanism": "off"},
    {"seed": -1},
    {"seed": 2**70},
    {"task": "detection"},
    {"rounds": 10**9},
    {"rounds": 0},
    {"codec": "pickle"},
    {"import": "os"},
    {"model.__class__": "os.system"},
    {"data.root": "/etc"},
    {f"key{number}": number for number in range(10_000)},
)
"""Changes of an honest run's config, each a request."""
TEXTS: dict[str, Callable[[str], str]] = {
    "nested": lambda text: "[" * 100_000,
    "nested in a key": lambda text: text.replace('"window":5', '"window":' + '{"a":' * 30_000),
    "an integer of 5000 digits": lambda text: text.replace('"rounds":2', '"rounds":1' + "0" * 5000),
    "a key twice": lambda text: text.replace('"rounds":2', '"rounds":2,"rounds":2'),
    "other order": lambda text: json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")),
    "blanks": lambda text: text.replace(",", ", "),
    "cut off": lambda text: text[:-1],
    "of 50 MB": lambda text: text.replace('"unet"', '"' + "x" * 50_000_000 + '"'),
    "a list of 5 million": lambda text: text.replace('["t1"]', "[" + "1," * 5_000_000 + "1]"),
    "empty": lambda text: "",
    "null": lambda text: "null",
    "a list": lambda text: f"[{text}]",
    "YAML": lambda text: "seed: 0",
}
"""Changes of its JSON."""


def configs(run: RunConfig) -> dict[str, str]:
    """The JSON of each hostile config, by what is odd in it."""
    made = {}
    for changes in VALUES:
        values = deepcopy(json.loads(run.as_json))
        for path, value in changes.items():
            *groups, key = path.split(".")
            inner = values
            for group in groups:
                inner = inner[group]
            inner[key] = value
        name = " ".join(f"{path}={value}"[:60] for path, value in changes.items())[:100]
        made[f"{len(made) + 1}: {name}"] = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return made | {name: change(run.as_json) for name, change in TEXTS.items()}


def weights(run: RunConfig) -> dict[str, bytes]:
    """Weights that are not of the run's model, by what is odd in them."""
    own = {name: tensor.detach() for name, tensor in travelling(initial_model(run)).items()}
    first = next(iter(own))
    header_of = (2**30).to_bytes(8, "little")
    return {
        "none": b"",
        "rubbish": b"rubbish that is no header",
        "a header of 1 GiB": header_of + b"{}",
        "a header of 50 MB": (50_000_000).to_bytes(8, "little") + b'{"' + b"x" * 50_000_000,
        "nested": (200_000).to_bytes(8, "little") + b"[" * 200_000,
        "one missing": save({name: tensor for name, tensor in own.items() if name != first}),
        "one more": save(own | {"more": torch.zeros(1)}),
        "another shape": save(own | {first: own[first].flatten()}),
        "doubles": save({name: tensor.double() for name, tensor in own.items()}),
        "bytes that belong to nobody": weights_to_bytes(own) + b"x",
        "another preset": weights_to_bytes(travelling(initial_model(with_(run, "tiny")))),
    }


def with_(run: RunConfig, preset: str) -> RunConfig:
    """The run with another preset."""
    return parse_settings(composed(f"model.preset={preset}"))[0]


class Hospital:
    """A hospital without a case: a request that it would work on is declined for that, as no_cases."""

    def __init__(self, folder: Path, **policy: Any) -> None:
        accepts = PolicyConfig(**policy)
        scans, work = str(folder / "scans"), str(folder / "work")
        site = SiteConfig(name="a", root=scans, labels="mock", work=work, policy=accepts, device="cpu")
        self.log, self.app = folder / "work/site.log", make_client_app(lambda _: site)
        LocalGrid(self.app, {}, 1, 1.0)  # a Message needs to know who speaks

    def answer(self, records: RecordDict, kind: str = "train") -> str:
        """The code that leaves."""
        answer = self.app(Message(records, 1, kind), Context(1, 1, {}, RecordDict(), {}))
        return Reply.from_records(answer.content).code


def records(run: RunConfig, config: str | None = None, weights: bytes | None = None) -> RecordDict:
    """An honest request, or one with another config or other weights."""
    own = _honest_weights(run) if weights is None else weights
    made = Request(run_id="r", round=1, config=run, weights=own, head="0" * 64).to_records()
    if config is not None:
        made["request"]["config"] = config
        made["request"]["config_hash"] = _hash(config)
    return made


@lru_cache
def _honest_weights(run: RunConfig) -> bytes:
    return weights_to_bytes(travelling(initial_model(run)))


def _hash(config: str) -> str:
    """What a site would find, so that the hash alone refuses nothing."""
    with suppress(ConfigError):
        return parse(RunConfig, config).hash
    return hashlib.sha256(config.encode()).hexdigest()


def main() -> None:
    """Ask for everything hostile."""
    os.fsync = lambda descriptor: None  # as in conftest.py
    run = parse_settings(composed())[0]
    built: list[str] = []
    register = torch.nn.Module.register_parameter

    def noted(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            built.append(f"{type(module).__name__}.{name}")
        register(module, name, parameter)

    with tempfile.TemporaryDirectory() as folder:
        hospital = Hospital(Path(folder))
        first = hospital.answer(records(run))  # loads what any request loads
        asked = {name: records(run, config=text) for name, text in configs(run).items()}
        asked |= {f"weights: {name}": records(run, weights=data) for name, data in weights(run).items()}
        gc.freeze()  # else looking through what was imported is most of the time
        torch.nn.Module.register_parameter = noted  # type: ignore[method-assign]
        give_back_freed_memory()
        found, idle = {}, resident("VmRSS")
        for name, sent in asked.items():
            codes: list[str] = []
            measure_once(lambda sent=sent, codes=codes: codes.append(hospital.answer(sent)), CPU)
            found[name] = {"codes": codes, "megabytes": resident("VmHWM") - idle}
        lines = hospital.log.read_text().splitlines()
    compiler = "torch._dynamo" in sys.modules
    json.dump({"honest": first, "built": built, "found": found, "lines": lines, "compiler": compiler}, sys.stdout)


if __name__ == "__main__":
    main()
