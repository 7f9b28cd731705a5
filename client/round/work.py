"""What a site does with a request: prepare its cohort, train, or evaluate."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor, nn

from gliofed.client.round.job import Job, open_job
from gliofed.client.round.judge import Admitted
from gliofed.client.round.memory import with_less_memory
from gliofed.client.round.outbox import Outbox
from gliofed.client.round.policy import DeclinedError, counts_leave, metrics_leave, reply_key
from gliofed.client.round.states import States
from gliofed.client.round.trained import note_trained, pseudonyms
from gliofed.client.round.training import TrainResult, train_one_round
from gliofed.shared.algorithms import ALGORITHMS, kept_of
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.algorithms.groups import joined
from gliofed.shared.codec import encode, travelling
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.data.measuring import measure_each
from gliofed.shared.data.samples import Batch
from gliofed.shared.messages import Reply
from gliofed.shared.models.dropout import seed_layers
from gliofed.shared.seeding import seed_of
from gliofed.shared.sizes import count, outline_of_request
from gliofed.shared.tasks import TASKS
from gliofed.shared.wording import quantity

# private_work is imported where it is used: Opacus takes seconds to load, and each message may be a process.

ROOM_FOR_LOGS = 2**20
"""Bytes."""
FULL = 4
"""Bytes of a number in fp32."""


def prepare(admitted: Admitted) -> Reply:
    """Say who the site is and how many patients it would train on; its cache is filled on the way."""
    job = open_job(admitted)
    patients = len(job.cohort.train)
    if job.request.config.private:
        from gliofed.client.round.private_work import ledger_of, patients_to_report

        with ledger_of(job) as ledger:
            patients = patients_to_report(job, ledger)
    return Reply(site=job.site.name, patients=patients, left_out=_left_out(job))


def train(admitted: Admitted) -> Reply:
    """Train for a round and reply with the update, or with the stored reply if this request was answered before."""
    site, request = admitted.site, admitted.request
    if admitted.stored and (stored := admitted.stored.read()):
        return stored if metrics_leave(site.policy, request.config) else replace(stored, metrics={})
    job = open_job(admitted)
    reply = with_less_memory(job, _train_privately if request.config.private else _train_openly)
    Outbox(site.folder.outbox).store(reply_key(site.policy, request), reply, pseudonyms(site, job.cohort.train))
    return reply


@torch.no_grad()
def evaluate(admitted: Admitted) -> Reply:
    """Measure the weights that were sent on the site's validation or test patients, each patient once."""
    job = open_job(admitted)
    if job.request.config.private:
        from gliofed.client.round.private_work import ledger_of

        with ledger_of(job):  # declines a split that would measure training patients
            pass
    patients, least = len(job.measured), job.site.policy.min_validation
    if 0 < patients < least:
        part = f"{job.request.part or 'validation'} patient"
        sentence = f"{quantity(patients, part)}: policy.min_validation asks for {least}"
        raise DeclinedError("few_validation", sentence)
    return with_less_memory(job, _measure)


def _measure(job: Job) -> Reply:
    config = job.request.config
    task, model = TASKS[config.task], job.model().eval()
    measured = measure_each(task, model, job.measured, config.data, job.reading, job.device)
    metrics = {name: value for name, value in task.summarise(measured).items() if not _of_few(name, measured, job)}
    return Reply(site=job.site.name, patients=len(measured), metrics=metrics)


def _of_few(name: str, measured: Sequence[Mapping[str, float]], job: Job) -> bool:
    """Whether a metric, such as that of change, is of fewer patients than the site lets metrics be of."""
    return 0 < sum(name in patient for patient in measured) < job.site.policy.min_validation


def open_steps(job: Job, model: nn.Module, change: Callable[[Batch], Batch] = lambda batch: batch) -> TrainResult:
    """The round's steps, without privacy; `change` spoils the samples of a simulated site that has a fault."""
    config, patients = job.request.config, job.cohort.train
    source = Source(patients, config.data, config.train, job.reading, job.seed_key)
    steps = config.train.local_steps(len(patients))
    task, local = TASKS[config.task], job.local(model, steps)
    with closing(batches(source, steps, job.device, job.workers)) as drawn:
        return train_one_round(model, map(change, drawn), task, config.train, steps, job.device, local)


Steps = Callable[[Job, nn.Module], TrainResult]
Hide = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def train_with(job: Job, patients: int, steps: Steps = open_steps, hide: Hide = dict) -> Reply:
    """Take the round's steps from the weights that were sent; the reply tells of so many patients."""
    config = job.request.config
    note_trained(job.site, job.request.run_id, job.request.round, job.cohort.train)
    model = job.model()
    seed_layers(model, seed_of(*job.seed_key, "layers"), job.device)
    at_home = ALGORITHMS[config.algorithm.name].at_home(model)
    before = {name: tensor.detach().cpu().clone() for name, tensor in travelling(model, at_home).items()}
    result = steps(job, model)
    update = {name: tensor.detach().cpu() - before[name] for name, tensor in travelling(model, at_home).items()}
    coded = encode(joined(hide(update), result.returned), config.codec)
    if kept_of(config):
        Outbox(job.site.folder.outbox).give_room()
        home = {HOME.name: {name: each for name, each in model.state_dict().items() if name in at_home}}
        states = States(job.site.folder.state / job.request.run_id)
        states.store(hashlib.sha256(coded).hexdigest(), result.kept | home, job.request.parent)
    return Reply(
        site=job.site.name,
        patients=patients,
        steps=result.steps,
        metrics={"loss": result.loss} if metrics_leave(job.site.policy, config) else {},
        left_out=_left_out(job),
        update=coded,
    )


def _train_openly(job: Job) -> Reply:
    return train_with(job, len(job.cohort.train))


def _train_privately(job: Job) -> Reply:
    """The same with private steps, or with an update that is made private; charged before the first step."""
    from gliofed.client.round.private_work import charge_round, hide, ledger_of, patients_to_report, private_steps

    with ledger_of(job) as ledger:
        # Before the charge: nobody is charged for an update that there is no room for. It is not larger than the
        # weights in full, and neither is any group that is kept; the rest is for the lines of the logs.
        config = job.request.config
        room = FULL * count(outline_of_request(config, training=True)) * (1 + len(kept_of(config))) + ROOM_FOR_LOGS
        Outbox(job.site.folder.outbox).make_room(room)
        patients = patients_to_report(job, ledger)
        plan = charge_round(job, ledger, patients)
        if job.request.config.privacy.mechanism == "local_update":
            reply = train_with(job, patients, hide=lambda update: hide(job, update, plan))
        else:
            reply = train_with(job, patients, lambda job, model: private_steps(job, model, plan))
        return replace(reply, epsilon=math.ceil(10 * ledger.epsilon()) / 10)


def _left_out(job: Job) -> dict[str, int]:
    return job.cohort.left_out if counts_leave(job.site.policy, job.request.config) else {}
