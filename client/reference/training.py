"""Training of reference models: the sites' own samples and steps, in one place and without rounds between them.

A model goes through the federation's rounds and takes in each the very samples that its sites took, the same patches of
them, at the round's learning rate. Its optimiser's moments go on from round to round. Everything follows from the run's
seed, the names of model and site, and the round.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from threading import Event
from typing import Any

import torch
from torch import Tensor

from gliofed.client.round.training import train_one_round
from gliofed.shared.algorithms import FEDAVG
from gliofed.shared.algorithms.groups import Groups, Local
from gliofed.shared.algorithms.optimizers import rate_of
from gliofed.shared.checkpoint import load_checkpoint, save_checkpoint
from gliofed.shared.codec import load_weights, travelling, weights_to_bytes
from gliofed.shared.config import RunConfig, as_values
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Batches, Source, batches, in_random_order
from gliofed.shared.data.samples import Batch
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.models.dropout import seed_layers
from gliofed.shared.parse import MALFORMED, ConfigError
from gliofed.shared.run_folder import BaselineFolder
from gliofed.shared.seeding import generator, seed_of
from gliofed.shared.tasks import TASKS, model_of, reading_of
from gliofed.shared.weights import average_of_rounds

Report = Callable[[int, int], None]
"""Called with the steps that were taken so far and all there will be."""
POLL = 0.2
"""Seconds between two looks at the models that are being trained."""


@dataclass(frozen=True)
class Baseline:
    """One model to be trained."""

    name: str
    rounds: dict[int, tuple[str, ...]]
    """By the federation's round, the sites whose samples it takes, sorted; only rounds with any."""

    @property
    def key(self) -> str:
        """Where its randomness comes from: of one site alone the site's name, as in the federation."""
        sites = {site for each in self.rounds.values() for site in each}
        return sites.pop() if len(sites) == 1 else self.name

    def folder(self, root: Path) -> BaselineFolder:
        """Its files below `root`."""
        return BaselineFolder(root / self.name.replace(" ", "-"))


@dataclass(frozen=True)
class Trainer:
    """What all models of a run have in common."""

    run: RunConfig
    run_id: str
    cohorts: Mapping[str, Sequence[Patient]]
    """Training patients of each site."""
    first: Mapping[str, Tensor]
    """The weights that the federation began with."""
    device: torch.device
    threads: int
    workers: int = 0

    def samples(self, baseline: Baseline, round: int) -> list[tuple[str, int]]:
        """How many samples it takes of each site in a round: as many as the site took in the federation."""
        train = self.run.train
        sites = baseline.rounds[round]
        return [(site, train.local_steps(len(self.cohorts[site])) * train.batch) for site in sites]

    def steps(self, baseline: Baseline) -> int:
        """How many steps it takes in all."""
        taken = sum(number for round in baseline.rounds for _, number in self.samples(baseline, round))
        return taken // self.run.train.batch

    def drawn(self, baseline: Baseline, round: int) -> Batches:
        """The batches of a round: of one site as the federation has them, of several their samples in random order."""
        run, reading, sources = self.run, reading_of(self.run), []
        for site, number in self.samples(baseline, round):
            key = (run.seed, site, round)
            sources.append((Source(self.cohorts[site], run.data, run.train, reading, key), number))
        if len(sources) == 1:
            [(source, number)] = sources
            return batches(source, number // run.train.batch, self.device, self.workers)
        rng = generator(run.seed, baseline.key, round, "order")
        return in_random_order(sources, rng, self.device, self.workers)

    def train(self, baseline: Baseline, folder: BaselineFolder, stepped: Callable[[int], None]) -> None:
        """Train a model to its end, or go on after its last finished round, and leave it in `folder`.

        `stepped` hears how many steps were taken so far, after each.
        """
        torch.set_num_threads(self.threads)  # holds for this thread
        model, task = model_of(self.run).to(self.device), TASKS[self.run.task]
        weights, moments, average = dict(self.first), Groups(), dict[str, Tensor]()
        state: dict[str, Any] = {"round": 0, "rounds": 0, "steps": 0, "seconds": 0.0}
        if found := load_checkpoint(folder.checkpoints):
            moments, state = found
            weights, average, _ = (moments.pop(group) for group in ("model", "average", "optimizer"))
        load_weights(model, weights)
        for round in sorted(each for each in baseline.rounds if each > state["round"]):
            started, taken = time.monotonic(), state["steps"]
            seed_layers(model, seed_of(self.run.seed, baseline.key, round, "layers"), self.device)
            steps = sum(number for _, number in self.samples(baseline, round)) // self.run.train.batch
            local = self._local(round, steps, moments)
            with closing(self.drawn(baseline, round)) as drawn:
                counted = _counted(drawn, taken, stepped)
                moments = train_one_round(model, counted, task, self.run.train, steps, self.device, local).kept
            weights = {name: tensor.detach().cpu().clone() for name, tensor in travelling(model).items()}
            state["rounds"] += 1
            average = average_of_rounds(average, weights, self.run.strategy.average, state["rounds"])
            state |= {"round": round, "steps": taken + steps, "seconds": state["seconds"] + time.monotonic() - started}
            kept = {group: {name: each.cpu() for name, each in named.items()} for group, named in moments.items()}
            tensors = {"model": weights, "optimizer": {}, "average": average, **kept}
            save_checkpoint(folder.checkpoints, round, tensors, state)
        self._leave(folder, average or weights, state)

    def _local(self, round: int, steps: int, moments: Groups) -> Local:
        """Plain local training, whatever the run's method is, whose moments go on."""
        kept = {group: {name: each.to(self.device) for name, each in named.items()} for group, named in moments.items()}
        optimizer, rate = replace(self.run.optimizer, moments="kept"), rate_of(self.run, round)
        return Local(config=FEDAVG, optimizer=optimizer, round=round, steps=steps, rate=rate, kept=kept)

    def _leave(self, folder: BaselineFolder, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write the model as a run's own is written; the file of the training comes last."""
        write_bytes(folder.weights, weights_to_bytes(weights))
        facts = {"task": self.run.task, "model": as_values(self.run.model), "data": as_values(self.run.data)}
        write_json(folder.description, facts | {"run_id": self.run_id, "round": state["round"]})
        steps = state["steps"]
        took = {"samples": steps * self.run.train.batch, "steps": steps, "seconds": round(state["seconds"], 3)}
        write_json(folder.training, took)
        rmtree(folder.checkpoints, ignore_errors=True)


def train_all(trainer: Trainer, baselines: Sequence[Baseline], root: Path, at_once: int, report: Report) -> None:
    """Train those of the models that are not there yet, `at_once` at the same time, the longest first."""
    steps = {baseline.name: trainer.steps(baseline) for baseline in baselines}
    missing = [baseline for baseline in baselines if not baseline.folder(root).training.exists()]
    done = {name: 0 if name in {each.name for each in missing} else number for name, number in steps.items()}
    stop = Event()

    def train(baseline: Baseline) -> None:
        def stepped(number: int) -> None:
            if stop.is_set():
                raise _StoppedError
            done[baseline.name] = number

        trainer.train(baseline, baseline.folder(root), stepped)
        done[baseline.name] = steps[baseline.name]

    with workers(at_once) as pool:
        try:
            longest_first = sorted(missing, key=lambda each: -steps[each.name])
            waiting: set[Future[None]] = {pool.submit(train, each) for each in longest_first}
            while waiting:
                ended, waiting = wait(waiting, POLL, FIRST_EXCEPTION)
                for each in ended:
                    each.result()
                report(sum(done.values()), sum(steps.values()))
        finally:
            stop.set()


@contextmanager
def workers(number: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that work side by side. After an error nothing more is begun; after Ctrl-C nobody waits for them."""
    pool = ThreadPoolExecutor(number)
    wait_for_them = False
    try:
        yield pool
        wait_for_them = True
    except Exception:
        wait_for_them = True
        raise
    finally:
        pool.shutdown(wait_for_them, cancel_futures=True)


def read_training(folder: BaselineFolder) -> dict[str, Any]:
    """Samples, steps and seconds of a model that is done, and its last round. Raises ConfigError if damaged."""
    try:
        took = dict(json.loads(folder.training.read_text()))
        return took | {"round": json.loads(folder.description.read_text())["round"]}
    except (FileNotFoundError, *MALFORMED):
        raise ConfigError(f"{folder.root}: damaged; remove this folder, and it is trained anew") from None


class _StoppedError(Exception):
    """Nobody waits for this model any more."""


def _counted(drawn: Iterator[Batch], taken: int, stepped: Callable[[int], None]) -> Iterator[Batch]:
    for done, batch in enumerate(drawn, start=taken):
        stepped(done)
        yield batch
