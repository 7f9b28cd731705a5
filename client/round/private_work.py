"""What a private run does otherwise: it is charged first; its steps or update, and numbers of patients, are noisy."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor, nn

from gliofed.client.doctor.consent import read_consent
from gliofed.client.round.job import Job
from gliofed.client.round.ledger import Charge, Ledger, hold
from gliofed.client.round.policy import DeclinedError, check_noise, counts_leave, data_reading
from gliofed.client.round.privacy import Plan, plan_round, train_privately
from gliofed.client.round.training import TrainResult
from gliofed.shared.accounting import default_delta
from gliofed.shared.config import DataConfig
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Drawn, of_one
from gliofed.shared.noise import new_secret, noisy_mean
from gliofed.shared.seeding import seed_of
from gliofed.shared.tasks import TASKS


@contextmanager
def ledger_of(job: Job) -> Iterator[Ledger]:
    """Hold the site's ledger, in its work folder: until the end of a round, so that no second run trains meanwhile."""
    policy, data = job.site.policy, job.request.config.data
    exact = len(_everybody(job)) if counts_leave(policy, job.request.config) else None
    with hold(job.site.folder.ledger, policy.delta or default_delta(exact)) as ledger:
        if policy.delta not in (None, ledger.delta):
            sentence = f"policy.delta={policy.delta:g}: the study's ledger was opened with {ledger.delta:g}; keep that"
            raise DeclinedError("ledger", sentence)
        if ledger.split not in ("", split_of(data)):
            raise DeclinedError("ledger", f"{split_of(data)}: the study's patients were parted by {ledger.split}")
        _budget(job, ledger)  # noted also where nothing is charged
        yield ledger


def split_of(data: DataConfig) -> str:
    """How patients are parted; another way would put some of them on the other side."""
    test = "" if data.test is None else f" data.test={data.test:g}"
    return f"data.validation={data.validation:g} data.split_seed={data.split_seed}{test}"


def charge_round(job: Job, ledger: Ledger, reported: int) -> Plan:
    """Plan the round of a site that tells of so many patients, and write its charge.

    Raises DeclinedError where the least budget that the run ever asked for, or the site's ceiling, does not hold it.
    """
    policy, config = job.site.policy, job.request.config
    if not 0 < job.request.round <= config.rounds:  # its learning rate might be below zero
        raise DeclinedError("policy", f"round {job.request.round}: the run has {config.rounds}")
    exact = counts_leave(policy, config) or config.privacy.mechanism == "local_update"  # or no number at all leaves
    also = () if exact else (_count_mechanism(job),)
    epsilon, delta = _budget(job, ledger)
    least = replace(config, privacy=replace(config.privacy, epsilon=epsilon, delta=delta))
    try:
        plan = plan_round(least, job.request.round, reported, ledger.delta, also)
    except ValueError as error:
        raise DeclinedError("budget", f"privacy.{error} (policy.count_noise={policy.count_noise:g})") from None
    check_noise(policy, plan.sigma)
    charge = _charge(job, "train", plan.sigma, plan.rate, plan.steps)
    ledger.charge(replace(charge, noisy=None if exact else _drawn(job, ledger)), policy.max_epsilon)
    return plan


def private_steps(job: Job, model: nn.Module, plan: Plan) -> TrainResult:
    """Take the private steps that were charged."""
    config = job.request.config

    def sample(patient: Patient, rng: np.random.Generator) -> Drawn:
        pinned = job.device.type == "cuda"
        return of_one(patient, config.data, config.train, rng, job.reading, config.privacy.patches, pinned)

    people, task = job.cohort.train, TASKS[config.task]
    return train_privately(model, people, sample, task, config, plan, job.device, _secret(job), job.workers)


def hide(job: Job, update: dict[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """Clip a whole update and add the noise that was charged."""
    return noisy_mean([update.__getitem__], update, job.request.config.privacy.clip, plan.sigma, _secret(job))


def patients_to_report(job: Job, ledger: Ledger) -> int:
    """The number of training patients as it may leave: a noisy one is drawn once for all patients, and charged.

    A run keeps its number when patients withdraw: it is of no patient more than what was charged, a new one would tell
    that somebody left, and would cost what the last round needs. The noise is on the number of all patients of the
    site, whichever of them a request has for training. With local_update, whose unit is the whole site, every site
    says 1. Raises DeclinedError where no budget holds that.
    """
    config = job.request.config
    if counts_leave(job.site.policy, config):
        return len(job.cohort.train)
    if config.privacy.mechanism == "local_update":
        return 1
    noisy = _drawn(job, ledger)
    if noisy is None:
        sigma, rate, steps = _count_mechanism(job)
        test_seed = config.privacy.test_seed
        seed = secrets.randbits(256) if test_seed is None else seed_of(test_seed, *job.seed_key, "count")
        noisy = round(len(_everybody(job)) + np.random.default_rng(seed).normal(scale=sigma))
        charge = replace(_charge(job, "count", sigma, rate, steps), noisy=noisy, cohort=_cohort(job))
        ledger.charge(charge, job.site.policy.max_epsilon)
    return max(1, round(noisy * (1 - config.data.validation - (config.data.test or 0.0))))


def _drawn(job: Job, ledger: Ledger) -> int | None:
    return ledger.noisy_count(job.request.run_id, _reading(job), _cohort(job))


def _everybody(job: Job) -> list[str]:
    """Names of all patients of the site."""
    return sorted(patient.name for patient in job.cohort.everybody)


def _cohort(job: Job) -> str:
    """All patients as they are read: the same number for two readings would tell that both use the same patients."""
    return read_consent(job.site.folder.root).pseudonym("\x1f".join([_reading(job), *_everybody(job)]))


def _reading(job: Job) -> str:
    return json.dumps(data_reading(job.request.config), sort_keys=True)


def _budget(job: Job, ledger: Ledger) -> tuple[float, float]:
    """The least epsilon and delta that the run ever asked for: a request that asks for more gets no more."""
    privacy = job.request.config.privacy
    return ledger.keep_budget(job.request.run_id, privacy.epsilon, privacy.delta)


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
        reading=_reading(job),
        split=split_of(job.request.config.data),
    )


def _secret(job: Job) -> int:
    return new_secret(job.request.config.privacy.test_seed, job.site.name, job.request.round, "private")
