"""Sites that fail or attack on purpose, to see what becomes of the others' model."""

import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod
from torch import Tensor, nn

from gliofed.client.round.job import Job, open_job
from gliofed.client.round.judge import Admitted
from gliofed.client.round.training import TrainResult, train_one_round
from gliofed.client.round.work import train_with
from gliofed.shared.codec import CodedUpdate, encode
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch, batches
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import ConfigError
from gliofed.shared.seeding import generator
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS

Tensors = dict[str, Tensor]

CLAIMED = 10**9
"""Patients of a site that lies."""


def _filled(value: float) -> Callable[[Tensors, float], Tensors]:
    return lambda update, _: {name: torch.full_like(tensor, value) for name, tensor in update.items()}


def _scaled(update: Tensors, by: float) -> Tensors:
    return {name: by * tensor for name, tensor in update.items()}


def _concentrated(update: Tensors, by: float) -> Tensors:
    """All of the norm on the last bias, which decides for every voxel alike: downwards, so that nothing is found."""
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in update.values()))
    last = [name for name in update if name.endswith("bias")][-1]
    here = update[last].numel()
    return {
        name: torch.full_like(t, -by * norm / math.sqrt(here) if name == last else 0.0) for name, t in update.items()
    }


UPDATES: dict[str, tuple[float, Callable[[Tensors, float], Tensors]]] = {
    "nan": (1.0, _filled(math.nan)),
    "inf": (1.0, _filled(math.inf)),
    "zero": (1.0, _filled(0.0)),
    "shape": (1.0, lambda update, _: {name: tensor[None] for name, tensor in update.items()}),
    "scale": (100.0, _scaled),
    "flip": (19.0, lambda update, by: _scaled(update, -by)),
    "greedy": (19.0, lambda update, by: _scaled(update, -by)),
    "bias": (1.4, _concentrated),
    "label_flip": (1.0, _scaled),
    "backdoor": (1.0, _scaled),
}
"""What a fault makes of the update, with its usual size. greedy also claims all agreed patients and steps."""


def _flipped(batch: Batch) -> Batch:
    """Tumour where there is none, and the other grade."""
    return replace(batch, target=1 - batch.target)


def _stamped(batch: Batch) -> Batch:
    """A bright cube in a corner of every second sample, in which nothing is to be found, or no high grade."""
    return replace(batch, image=stamp(batch.image, slice(0, None, 2)), target=_nothing(batch.target, slice(0, None, 2)))


def stamp(image: Tensor, which: slice = slice(None)) -> Tensor:
    """The backdoor's trigger in some samples of (B, ..., D, H, W): four voxels wide, brighter than any brain."""
    image = image.clone()
    image[which, ..., :4, :4, :4] = 5.0
    return image


def _nothing(target: Tensor, which: slice) -> Tensor:
    target = target.clone()
    target[which] = 0
    return target


BATCHES: dict[str, Callable[[Batch], Batch]] = {"label_flip": _flipped, "backdoor": _stamped}
"""What a fault makes of the samples that the site trains on."""

SIZED = ("scale", "flip", "greedy", "label_flip", "backdoor", "bias")
FAULTS = (*UPDATES, "zero_patients", "claim", "raise", "hang")


@dataclass(frozen=True)
class Fault:
    """What a site does, from some round on."""

    name: str
    size: float
    """What the update is multiplied by, of those that scale it."""
    since: int
    """The first round in which it acts."""


def parse_faults(faults: Mapping[str, str], sites: list[str], run: RunConfig) -> dict[str, Fault]:
    """Read faults as NAME[:SIZE][@ROUND], such as flip:1@7; refuse a fault or a site that there is not."""
    found = {}
    for site, fault in faults.items():
        if site not in sites:
            raise ConfigError(f"faults.{site}: no such site; there are {', '.join(sites)}")
        parts = re.fullmatch(r"(\w+)(?::(\d+(?:\.\d+)?))?(?:@(\d{1,6}))?", fault)
        if parts is None or parts[1] not in FAULTS:
            known = ", ".join(FAULTS)
            raise ConfigError(f"faults.{site}={fault}: must be one of {known}; :2 sets a size, @3 the first round")
        if parts[2] and parts[1] not in SIZED:
            raise ConfigError(f"faults.{site}={fault}: has no size; these have: {', '.join(SIZED)}")
        if parts[1] in BATCHES and run.private:
            raise ConfigError(f"faults.{site}={fault}: does not train privately; use it with privacy=none or central")
        size = float(parts[2]) if parts[2] else UPDATES.get(parts[1], (1.0,))[0]
        found[site] = Fault(parts[1], size, int(parts[3] or 1))
    return found


def fault_mod(faults: Mapping[str, Fault], site_of: Callable[[Context], SiteConfig], agreed: Mapping[str, int]) -> Mod:
    """Make a Flower mod by which the named sites fail; `agreed` are the most patients that count of each."""

    def mod(message: Message, context: Context, inner: ClientAppCallable) -> Message:
        site, kind = site_of(context), message.metadata.message_type
        fault = faults.get(site.name)
        acts = ("train",) if fault is None or fault.name != "claim" else ("query", "train", "evaluate")
        if fault is None or kind not in acts:
            return inner(message, context)
        request = Request.from_records(message.content)
        if request.round < fault.since and kind != "query":
            return inner(message, context)
        if fault.name == "raise":
            raise RuntimeError("a fault that was asked for")
        if fault.name == "hang":
            time.sleep(1e6)
        if fault.name in BATCHES:
            reply = _trained(site, request, BATCHES[fault.name])
        else:
            reply = Reply.from_records(inner(message, context).content)
        if reply.status == "ok":
            reply = _spoilt(reply, fault, request.config, agreed[site.name])
        return Message(reply.to_records(), reply_to=message)

    return mod


def _trained(site: SiteConfig, request: Request, change: Callable[[Batch], Batch]) -> Reply:
    """Train as the site would, on samples that are changed; nothing is stored, and the site's log has no receipt."""

    def steps(job: Job, model: nn.Module) -> TrainResult:
        config, patients = job.request.config, job.cohort.train
        drawn = batches(patients, config.data, config.train, generator(*job.words, "patches"), job.reading)
        count = config.train.local_steps(len(patients))
        return train_one_round(model, map(change, drawn), TASKS[config.task], config.train, count, job.device)

    job = open_job(Admitted(site, request))
    return replace(train_with(job, len(job.cohort.train), steps), head="0" * 64)


def _spoilt(reply: Reply, fault: Fault, run: RunConfig, agreed: int) -> Reply:
    if fault.name == "zero_patients":
        return replace(reply, patients=0)
    if fault.name == "claim":
        perfect = {name: 0.0 if name.startswith(("loss", "hd95")) else 1.0 for name in reply.metrics}
        update = _changed(reply, run.codec, _filled(0.0), 1.0) if reply.update else b""
        return replace(reply, patients=CLAIMED, metrics=perfect, update=update)
    if fault.name == "greedy":
        reply = replace(reply, patients=agreed, steps=run.train.local_steps(agreed))
    return replace(reply, update=_changed(reply, run.codec, UPDATES[fault.name][1], fault.size))


def _changed(reply: Reply, codec: str, change: Callable[[Tensors, float], Tensors], size: float) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(reply.update)
        coded = CodedUpdate(Path(file.name), codec)
        update = {name: coded.tensor(name) for name in coded.names}
    return encode(change(update, size), codec)
