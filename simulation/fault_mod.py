"""Sites that fail or attack on purpose, as a mod of Flower's client."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from gliofed.client.round.job import open_job
from gliofed.client.round.judge import Admitted
from gliofed.client.round.work import open_steps, train_with
from gliofed.shared.codec import CodedUpdate, encode
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.messages import Reply, Request
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.faults import FAULTS, Fault, Tensors

CLAIMED = 10**9
"""Patients of a site that lies."""


def fault_mod(faults: Mapping[str, Fault], site_of: Callable[[Context], SiteConfig], agreed: Mapping[str, int]) -> Mod:
    """Make a Flower mod by which the named sites fail; `agreed` are the most patients that count of each."""

    def mod(message: Message, context: Context, inner: ClientAppCallable) -> Message:
        site, kind = site_of(context), message.metadata.message_type
        fault = faults.get(site.name)
        acts = ("train",) if fault is None or fault.name != "claim" else ("query", "train", "evaluate")
        if fault is None or kind not in acts:
            return inner(message, context)
        request = Request.from_records(message.content)
        if not fault.since <= request.round <= fault.until and kind != "query":
            return inner(message, context)
        if fault.name == "raise":
            raise RuntimeError("a fault that was asked for")
        if fault.name == "hang":
            time.sleep(1e6)
        if change := FAULTS[fault.name].batch:
            reply = _trained(site, request, change)
        else:
            reply = Reply.from_records(inner(message, context).content)
        if reply.status == "ok":
            reply = _spoilt(reply, fault, request.config, agreed[site.name])
        return Message(reply.to_records(), reply_to=message)

    return mod


def _trained(site: SiteConfig, request: Request, change: Callable[[Batch], Batch]) -> Reply:
    """Train as the site would, on samples that are changed; nothing is stored, and the site's log has no receipt."""
    job = open_job(Admitted(site, request))
    steps = partial(open_steps, change=change)
    return replace(train_with(job, len(job.cohort.train), steps), head="0" * 64)


def _spoilt(reply: Reply, fault: Fault, run: RunConfig, agreed: int) -> Reply:
    if fault.name == "zero_patients":
        reply = replace(reply, patients=0)
    if fault.name == "claim":
        perfect = {name: 0.0 if name.startswith(("loss", "hd95")) else 1.0 for name in reply.metrics}
        reply = replace(reply, patients=CLAIMED, metrics=perfect)
    if fault.name == "greedy":
        reply = replace(reply, patients=agreed, steps=run.train.local_steps(agreed))
    change = FAULTS[fault.name].update
    return replace(reply, update=_changed(reply, run.codec, change, fault.size)) if change and reply.update else reply


def _changed(reply: Reply, codec: str, change: Callable[[Tensors, float], Tensors], size: float) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(reply.update)
        coded = CodedUpdate(Path(file.name), codec)
        update = {name: coded.tensor(name) for name in coded.names}
    return encode(change(update, size), codec)
