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
from gliofed.shared.algorithms.groups import group_of
from gliofed.shared.codec import CodedUpdate, encode
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.messages import Reply, Request
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.faults import FAULTS, Fault, Tensors

CLAIMED = 10**9
"""Patients of a site that lies."""
ACTS = {"claim": ("query", "train", "evaluate"), "boast": ("evaluate",)}
"""When a fault acts that does so not only in training."""


def fault_mod(faults: Mapping[str, Fault], site_of: Callable[[Context], SiteConfig], agreed: Mapping[str, int]) -> Mod:
    """Make a Flower mod by which the named sites fail; `agreed` are the most patients that count of each."""

    def mod(message: Message, context: Context, inner: ClientAppCallable) -> Message:
        site, kind = site_of(context), message.metadata.message_type
        fault = faults.get(site.name)
        if fault is None or kind not in ACTS.get(fault.name, ("train",)):
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
            honest, reply = reply, spoilt(reply, fault, request.config, agreed[site.name])
            # It lies about what it goes on from, too: else it would decline the next request, which names this reply.
            for state in (site.folder.state / request.run_id).glob(f"{honest.update_sha256}-*"):
                state.rename(state.with_name(state.name.replace(honest.update_sha256, reply.update_sha256)))
        return Message(reply.to_records(), reply_to=message)

    return mod


def _trained(site: SiteConfig, request: Request, change: Callable[[Batch], Batch]) -> Reply:
    """Train as the site would, on samples that are changed; nothing is stored, and the site's log has no receipt."""
    job = open_job(Admitted(site, request))
    steps = partial(open_steps, change=change)
    return replace(train_with(job, len(job.cohort.train), steps), head="0" * 64)


def spoilt(reply: Reply, fault: Fault, run: RunConfig, agreed: int) -> Reply:
    """What the reply becomes by a fault, at a site that has so many agreed patients."""
    if fault.name == "zero_patients":
        reply = replace(reply, patients=0)
    if fault.name in ("claim", "boast"):
        perfect = {name: 0.0 if name.startswith(("loss", "hd95")) else 1.0 for name in reply.metrics}
        reply = replace(reply, patients=CLAIMED if fault.name == "claim" else reply.patients, metrics=perfect)
    if fault.name == "greedy":
        reply = replace(reply, patients=agreed, steps=run.train.local_steps(agreed))
    change = FAULTS[fault.name].update
    return replace(reply, update=_changed(reply, run.codec, change, fault)) if change and reply.update else reply


def _changed(reply: Reply, codec: str, change: Callable[[Tensors, float], Tensors], fault: Fault) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(reply.update)
        coded = CodedUpdate(Path(file.name), codec)
        update = {name: coded.tensor(name) for name in coded.names}
    for group in [fault.group] if fault.group else {group_of(name) for name in update}:
        update |= change({name: each for name, each in update.items() if group_of(name) == group}, fault.size)
    return encode(update, codec)
