"""What a private run does otherwise: it is charged first; its steps or update, and numbers of patients, are noisy."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor, nn

from client.job import Job
from client.ledger import Charge, Ledger, hold, ledger_folder
from client.policy import DeclinedError, counts_leave
from client.privacy import Plan, default_delta, plan_round, train_privately
from client.training import TrainResult
from shared.data.dataset import Patient
from shared.data.samples import Batch, of_one
from shared.noise import new_secret, noisy_mean
from shared.seeding import seed_of
from shared.tasks import TASKS


@contextmanager
def ledger_of(job: Job) -> Iterator[Ledger]:
    """Hold the site's ledger, in its work folder: until the end of a round, so that no second run trains meanwhile."""
    patients, policy = len(job.cohort.train), job.site.policy
    with hold(ledger_folder(job.site.work), policy.delta or default_delta(patients)) as ledger:
        if policy.delta not in (None, ledger.delta):
            sentence = f"policy.delta={policy.delta:g}: the study's ledger was opened with {ledger.delta:g}; keep that"
            raise DeclinedError("ledger", sentence)
        yield ledger


def charge_round(job: Job, ledger: Ledger) -> Plan:
    """Plan the round and write its charge; raise DeclinedError where the budget does not hold it."""
    policy, config = job.site.policy, job.request.config
    also = () if counts_leave(policy, config) else (_count_mechanism(job),)
    try:
        plan = plan_round(config, job.request.round, len(job.cohort.train), also)
    except ValueError as error:
        raise DeclinedError("budget", f"privacy.{error} (policy.count_noise={policy.count_noise:g})") from None
    ledger.charge(_charge(job, "train", plan.sigma, plan.rate, plan.steps), policy.max_epsilon)
    return plan


def private_steps(job: Job, model: nn.Module, plan: Plan) -> TrainResult:
    """Take the private steps that were charged."""
    config = job.request.config

    def sample(patient: Patient, rng: np.random.Generator) -> Batch:
        return of_one(patient, config.data, config.train, rng, job.reading, config.privacy.patches)

    return train_privately(model, job.cohort.train, sample, TASKS[config.task], config, plan, job.device, _secret(job))


def hide(job: Job, update: dict[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Clip a whole update and add the noise that was charged."""
    return noisy_mean([update.__getitem__], update, job.request.config.privacy.clip, plan.sigma, _secret(job))


def _secret(job: Job) -> int:
    return new_secret(job.request.config.privacy.test_seed, job.site.name, job.request.round, "private")


def patients_to_tell(job: Job, ledger: Ledger) -> int:
    """The number of training patients as it may leave: a noisy one is drawn once for a cohort, and charged."""
    patients, config = len(job.cohort.train), job.request.config
    if counts_leave(job.site.policy, config):
        return patients
    known = ledger.noisy_count(patients)
    if known is not None:
        return known
    sigma, rate, steps = _count_mechanism(job)
    test_seed = config.privacy.test_seed
    seed = secrets.randbits(256) if test_seed is None else seed_of(test_seed, *job.words, "count")
    noisy = max(1, round(patients + np.random.default_rng(seed).normal(scale=sigma)))
    ledger.charge(replace(_charge(job, "count", sigma, rate, steps), noisy=noisy), job.site.policy.max_epsilon)
    return noisy


def _count_mechanism(job: Job) -> tuple[float, float, int]:
    """One patient more or less changes the number by one: the noise's deviation is its multiplier."""
    return job.site.policy.count_noise, 1.0, 1


def _charge(job: Job, what: Literal["train", "count"], sigma: float, rate: float, steps: int) -> Charge:
    return Charge(
        what=what,
        run_id=job.request.run_id,
        round=job.request.round,
        sigma=sigma,
        rate=rate,
        steps=steps,
        patients=len(job.cohort.train),
        private=job.request.config.privacy.test_seed is None,
    )
