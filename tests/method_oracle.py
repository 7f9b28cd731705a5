"""Methods of federated optimisation as slow loops after their papers: no server, no state on disk, no optimiser."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from plain_federation import sites_of
from torch import Tensor

from gliofed.client.round.job import Job, open_job
from gliofed.client.round.judge import Admitted
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.messages import Request
from gliofed.shared.tasks import TASKS
from gliofed.simulation.settings import parse_settings

Weights = dict[str, Tensor]


class Oracle:
    """A run of which it is known which sites count in each round."""

    def __init__(self, values: dict[str, Any], folder: Path) -> None:
        self.run, _ = parse_settings(values)
        self.sites = {site.name: site for site in sites_of(values, self.run, folder)}
        self.model = initial_model(self.run)
        self.x: Weights = {name: each.detach().clone() for name, each in self.model.named_parameters()}
        zero = {name: torch.zeros_like(each) for name, each in self.x.items()}
        self.c: Weights = dict(zero)
        self.own_c: dict[str, Weights] = {site: dict(zero) for site in self.sites}
        self.moments: tuple[Weights, Weights] = (dict(zero), dict(zero))
        self.own_moments: dict[str, tuple[Weights, Weights, int]] = {s: (zero, zero, 0) for s in self.sites}
        self.own_norms: dict[str, Weights] = {}

    def job(self, site: str, round: int) -> Job:
        request = Request(run_id="oracle", round=round, config=self.run, weights=weights_to_bytes(self.x))
        return open_job(Admitted(self.sites[site], request))

    def gradients(self, y: Weights, batch: Any) -> Weights:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(y[name])
        loss = TASKS[self.run.task].loss(self.model.train()(*batch.inputs), batch.target, batch.weight)
        found = torch.autograd.grad(loss, list(self.model.parameters()))
        return dict(zip(self.x, found, strict=True))

    def clipped(self, g: Weights) -> Weights:
        norm = torch.sqrt(sum((each.double() ** 2).sum() for each in g.values()))  # type: ignore[arg-type]
        factor = min(1.0, (self.run.train.clip or 1e9) / (norm.item() + 1e-6))
        return {name: factor * each for name, each in g.items()}

    def drawn(self, job: Job) -> list[Any]:
        config, steps = self.run, self.run.train.local_steps(len(job.cohort.train))
        source = Source(job.cohort.train, config.data, config.train, job.reading, job.seed_key)
        return list(batches(source, steps, job.device))

    def mean(self, values: Mapping[str, Weights], patients: Mapping[str, int]) -> Weights:
        """Over the sites of `values`, weighted by their patients."""
        total = sum(patients[site] for site in values)
        return {
            name: sum(patients[site] / total * values[site][name] for site in values)  # type: ignore[misc]
            for name in next(iter(values.values()))
        }


def fedprox(oracle: Oracle, rounds: list[Collection[str]]) -> Weights:
    """Li et al. 2020, algorithm 2, with SGD as the local solver: AdamW would turn the rounding of a gradient near zero
    into a whole step, in each round's first.
    """
    rate, decay = oracle.run.train.lr, oracle.run.train.weight_decay
    for number, counted in enumerate(rounds, start=1):
        ends, patients = dict[str, Weights](), dict[str, int]()
        for site in counted:
            job = oracle.job(site, number)
            y = dict(oracle.x)
            for batch in oracle.drawn(job):
                mu, g = oracle.run.algorithm.mu, oracle.gradients(y, batch)
                g = oracle.clipped({name: g[name] + mu * (y[name] - oracle.x[name]) for name in g})
                y = {name: y[name] - rate * (g[name] + decay * y[name]) for name in y}
            ends[site], patients[site] = y, len(job.cohort.train)
        oracle.x = oracle.mean(ends, patients)
    return oracle.x


def adamw(run: RunConfig, y: Weights, g: Weights, m: Weights, v: Weights, t: int) -> tuple[Weights, Weights, Weights]:
    """Loshchilov and Hutter 2019, algorithm 2, with PyTorch's betas and epsilon."""
    rate = run.train.lr
    m = {name: 0.9 * m[name] + 0.1 * g[name] for name in y}
    v = {name: 0.999 * v[name] + 0.001 * g[name] ** 2 for name in y}
    y = {
        name: y[name] * (1 - rate * run.train.weight_decay)
        - rate * (m[name] / (1 - 0.9**t)) / ((v[name] / (1 - 0.999**t)).sqrt() + 1e-8)
        for name in y
    }
    return y, m, v


def scaffold(oracle: Oracle, rounds: list[Collection[str]]) -> Weights:
    """Karimireddy et al. 2020, algorithm 1, option II; the global rate is 1, and means are by patients. With
    algorithm.control=mean, c goes towards the mean of the sites' own.
    """
    rate = oracle.run.train.lr
    for number, counted in enumerate(rounds, start=1):
        dy, dc, patients = dict[str, Weights](), dict[str, Weights](), dict[str, int]()
        for site in counted:
            job, y, c, ci = oracle.job(site, number), dict(oracle.x), oracle.c, oracle.own_c[site]
            drawn = oracle.drawn(job)
            for batch in drawn:
                g = oracle.gradients(y, batch)
                g = oracle.clipped({name: g[name] - ci[name] + c[name] for name in g})
                decay = oracle.run.train.weight_decay
                y = {name: y[name] - rate * (g[name] + decay * y[name]) for name in y}
            new = {name: ci[name] - c[name] + (oracle.x[name] - y[name]) / (len(drawn) * rate) for name in y}
            dy[site] = {name: y[name] - oracle.x[name] for name in y}
            change = {name: new[name] - ci[name] for name in y}
            dc[site] = change if oracle.run.algorithm.control == "sum" else {n: new[n] - c[n] for n in y}
            oracle.own_c[site], patients[site] = new, len(job.cohort.train)
        move, change = oracle.mean(dy, patients), oracle.mean(dc, patients)
        oracle.x = {name: oracle.x[name] + move[name] for name in oracle.x}
        oracle.c = {name: oracle.c[name] + len(counted) / len(oracle.sites) * change[name] for name in oracle.c}
    return oracle.x


def fedbn(oracle: Oracle, rounds: list[Collection[str]]) -> Weights:
    """Li et al. 2021, algorithm 1: norms are each site's own. What travels is returned."""
    modules = dict(oracle.model.named_modules())
    norms = {name for name in oracle.x if "Norm" in type(modules[name.rpartition(".")[0]]).__name__}
    assert norms
    first = {name: oracle.x[name] for name in norms}
    for number, counted in enumerate(rounds, start=1):
        ends, patients = dict[str, Weights](), dict[str, int]()
        for site in counted:
            job = oracle.job(site, number)
            y = oracle.x | oracle.own_norms.get(site, first)
            m, v = (dict.fromkeys(y, torch.zeros(())) for _ in range(2))
            for t, batch in enumerate(oracle.drawn(job), start=1):
                y, m, v = adamw(oracle.run, y, oracle.clipped(oracle.gradients(y, batch)), m, v, t)
            oracle.own_norms[site] = {name: y[name] for name in norms}
            ends[site], patients[site] = y, len(job.cohort.train)
        oracle.x = oracle.mean(ends, patients)
    return {name: each for name, each in oracle.x.items() if name not in norms}


def fednova(oracle: Oracle, rounds: list[Collection[str]]) -> Weights:
    """Wang et al. 2020, for plain local SGD: the mean step of each site, averaged, times the effective steps."""
    rate, decay = oracle.run.train.lr, oracle.run.train.weight_decay
    for number, counted in enumerate(rounds, start=1):  # site-2 alone takes three steps, and the others two
        d, tau, patients = dict[str, Weights](), dict[str, int](), dict[str, int]()
        for site in counted:
            job, y = oracle.job(site, number), dict(oracle.x)
            drawn = oracle.drawn(job)
            for batch in drawn:
                g = oracle.clipped(oracle.gradients(y, batch))
                y = {name: y[name] - rate * (g[name] + decay * y[name]) for name in y}
            d[site] = {name: (oracle.x[name] - y[name]) / (rate * len(drawn)) for name in y}
            tau[site], patients[site] = len(drawn), len(job.cohort.train)
        assert (len(set(tau.values())) > 1) == ("site-2" in counted)  # else this would be FedAvg
        effective = sum(patients[site] * tau[site] for site in counted) / sum(patients.values())
        step = oracle.mean(d, patients)
        oracle.x = {name: oracle.x[name] - effective * rate * step[name] for name in step}
    return oracle.x


def averaged(oracle: Oracle, rounds: list[Collection[str]]) -> Weights:
    """Mills et al. 2020, algorithm 1: weights and both moments are averaged; bias as after all steps so far."""
    for number, counted in enumerate(rounds, start=1):
        ends = [dict[str, Weights](), dict[str, Weights](), dict[str, Weights]()]
        patients = dict[str, int]()
        for site in counted:
            job, y, (m, v) = oracle.job(site, number), dict(oracle.x), oracle.moments
            drawn = oracle.drawn(job)
            for t, batch in enumerate(drawn, start=1 + (number - 1) * len(drawn)):
                y, m, v = adamw(oracle.run, y, oracle.clipped(oracle.gradients(y, batch)), m, v, t)
            patients[site] = len(job.cohort.train)
            for part, value in zip(ends, (y, m, v), strict=True):
                part[site] = value
        oracle.x, *rest = (oracle.mean(part, patients) for part in ends)
        oracle.moments = (rest[0], rest[1])
    return oracle.x


def kept(oracle: Oracle, rounds: list[Collection[str]]) -> Weights:
    """FedAvg whose AdamW goes on at each site from where its last round that counted ended."""
    for number, counted in enumerate(rounds, start=1):
        ends, patients = dict[str, Weights](), dict[str, int]()
        for site in counted:
            job, y, (m, v, t) = oracle.job(site, number), dict(oracle.x), oracle.own_moments[site]
            for batch in oracle.drawn(job):
                t += 1
                y, m, v = adamw(oracle.run, y, oracle.clipped(oracle.gradients(y, batch)), m, v, t)
            oracle.own_moments[site], ends[site], patients[site] = (m, v, t), y, len(job.cohort.train)
        oracle.x = oracle.mean(ends, patients)
    return oracle.x


METHODS = {
    "fedprox": (fedprox, ("algorithm=fedprox", "algorithm.mu=1.0", "optimizer=sgd", "train.lr=0.05")),
    "scaffold": (scaffold, ("algorithm=scaffold", "algorithm.control=sum", "optimizer=sgd", "train.lr=0.05")),
    "scaffold, mean": (scaffold, ("algorithm=scaffold", "optimizer=sgd", "train.lr=0.05")),
    "fedbn": (fedbn, ("algorithm=fedbn",)),
    "fednova": (fednova, ("algorithm=fednova", "optimizer=sgd", "train.lr=0.05")),
    "averaged": (averaged, ("optimizer.moments=averaged",)),
    "kept": (kept, ("optimizer.moments=kept",)),
}
"""Each oracle, and the words by which a run follows it."""
SITES = tuple(f"site-{number}" for number in range(1, 5))
ROUNDS: list[Collection[str]] = [SITES, ("site-1", "site-3", "site-4"), ("site-1", "site-2", "site-3"), SITES]
"""Who counts: site-2 is refused in round 2, and site-4 is missing in round 3."""
UNEQUAL = (
    "sites=4",
    "rounds=4",
    "data.patients=5",
    "train.steps=null",
    "train.epochs=1",
    "fold.clip=null",
    "fold.max_share=1",
    "round.evaluate_every=0",
    "faults={site-2:nan@2-2,site-4:raise@3-3}",
)
