"""What a site does with a request: prepare its cohort, train, or evaluate."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from client.manifest import admit
from client.outbox import Outbox
from client.policy import DeclinedError, check_cohort, check_run
from client.training import pick_device, train_one_round
from shared.codec import encode, load_weights, travelling, weights_from_bytes
from shared.data.dataset import Cohort, Reading, open_cohort
from shared.data.samples import batches, whole
from shared.messages import Reply, Request
from shared.seeding import generator, seed_of
from shared.site_config import SiteConfig
from shared.tasks import TASKS, model_of, reading_of


@dataclass(frozen=True)
class _Job:
    """One request at one site, agreed to and with its data open."""

    site: SiteConfig
    request: Request
    cohort: Cohort
    device: torch.device
    reading: Reading

    def model(self) -> nn.Module:
        """Build the model with the weights that were sent, on the site's device."""
        model = model_of(self.request.config)
        load_weights(model, weights_from_bytes(self.request.weights))
        return model.to(self.device)


def prepare(site: SiteConfig, request: Request) -> Reply:
    """Say who the site is and how many patients it would train on; its cache is filled on the way."""
    job = _open(site, request)
    return Reply(site=site.name, patients=len(job.cohort.train), left_out=job.cohort.left_out)


def train(site: SiteConfig, request: Request) -> Reply:
    """Train for a round and reply with the update, or with the stored reply if this request was answered before."""
    check_run(site.policy, request.config)  # first: what was stored under another policy stays as well
    outbox = Outbox(Path(site.work) / "outbox")
    if stored := outbox.find(request.key):
        return stored if site.policy.metrics else replace(stored, metrics={})
    job, config = _open(site, request), request.config
    patients = job.cohort.train
    words = (config.seed, site.name, request.round)
    # For layers that draw from PyTorch's own generator, as dropout would; no model here has one. The generator is the
    # process's: with such a layer, sites in one process must take turns (at_once=1). Patches have their own.
    torch.manual_seed(seed_of(*words, "layers"))
    model = job.model()
    before = {name: tensor.detach().cpu().clone() for name, tensor in travelling(model).items()}
    result = train_one_round(
        model,
        batches(patients, config.data, config.train, generator(*words, "patches"), job.reading),
        TASKS[config.task],
        config.train,
        config.train.local_steps(len(patients)),
        job.device,
    )
    update = {name: tensor.detach().cpu() - before[name] for name, tensor in travelling(model).items()}
    reply = Reply(
        site=site.name,
        patients=len(patients),
        steps=result.steps,
        metrics={"loss": result.loss} if site.policy.metrics else {},
        left_out=job.cohort.left_out,
        update=encode(update, config.codec),
    )
    outbox.store(request.key, reply)
    return reply


@torch.no_grad()
def evaluate(site: SiteConfig, request: Request) -> Reply:
    """Measure the weights that were sent on the site's validation patients, each patient once."""
    job, config = _open(site, request), request.config
    task, model = TASKS[config.task], job.model().eval()
    measured = [
        task.measure(model, whole(patient, config.data, job.reading), config.data, job.device)
        for patient in job.cohort.validation
    ]
    metrics = task.summarise(measured) if site.policy.metrics else {}
    return Reply(site=site.name, patients=len(measured), metrics=metrics)


def _open(site: SiteConfig, request: Request) -> _Job:
    """Ask the policy, take the device and open the data, in this order: refusing is cheap."""
    check_run(site.policy, request.config)
    try:
        device = pick_device(site.device)
    except ValueError as error:
        raise DeclinedError("device", str(error)) from None
    torch.set_num_threads(site.threads)  # holds for this thread
    reading = reading_of(request.config)
    admitted = admit(site, request.config.data, request.config.task)
    cohort = open_cohort(site, request.config.data, reading, admitted.cases)
    left_out = Counter(admitted.left_out) + Counter(cohort.left_out)
    cohort = replace(cohort, left_out=dict(left_out))
    check_cohort(site.policy, request.config, len(cohort.train))
    return _Job(site, request, cohort, device, reading)
