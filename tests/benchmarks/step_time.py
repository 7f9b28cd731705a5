"""How much longer a training step of one run takes than one of another, so that both can be given the same seconds."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from gliofed.client.round.training import train_one_round
from gliofed.shared.algorithms import FEDAVG
from gliofed.shared.algorithms.groups import Local
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.models.dropout import seed_layers
from gliofed.shared.tasks import TASKS, model_of
from gliofed.simulation.settings import parse_settings

CPU = torch.device("cpu")


def time_ratio(words: Sequence[str], against: Sequence[str], steps: int = 12, repeats: int = 5) -> float:
    """CPU time of a step of segmentation with overrides `words` over that with `against`, on one thread.

    Of `repeats` times that both take so many steps in turn, the least counts: other work on the machine only adds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = [run_of(each) for each in (words, against)]
    models = [model_of(run) for run in runs]
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for run, model, own in zip(runs, models, seconds, strict=True):
            own.append(_seconds(run, model, steps))
    torch.set_num_threads(threads)
    return min(seconds[0]) / min(seconds[1])


def composed(words: Sequence[str]) -> Any:
    """What gliofed-simulate makes of overrides."""
    with initialize_config_module("gliofed.configs", version_base="1.3"):
        return OmegaConf.to_container(compose("simulation", list(words)), resolve=True)


def run_of(words: Sequence[str]) -> RunConfig:
    return parse_settings(composed(words))[0]


def _seconds(run: RunConfig, model: torch.nn.Module, steps: int) -> float:
    """Of a round on noise; what the model draws is the same each time."""
    seed_layers(model, 0, CPU)
    shape = (run.train.batch, len(run.data.modalities), *run.data.patch)
    image, target = torch.randn(shape), torch.rand(run.train.batch, len(run.data.regions), *run.data.patch) < 0.1
    start = time.process_time()
    local = Local(config=FEDAVG, optimizer=replace(run.optimizer, moments="fresh"), steps=steps, rate=run.train.lr)
    train_one_round(model, [Batch(image, target.float())] * steps, TASKS[run.task], run.train, steps, CPU, local)
    return time.process_time() - start
