"""Sites that fail on purpose, to see that the others do not."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from shared.codec import CodedUpdate, encode
from shared.messages import Reply, Request
from shared.parse import ConfigError

Tensors = dict[str, torch.Tensor]


def _filled(value: float) -> Callable[[Tensors], Tensors]:
    return lambda update: {name: torch.full_like(tensor, value) for name, tensor in update.items()}


def _wrong_shape(update: Tensors) -> Tensors:
    return {name: tensor[None] for name, tensor in update.items()}


UPDATES: dict[str, Callable[[Tensors], Tensors]] = {
    "nan": _filled(float("nan")),
    "inf": _filled(float("inf")),
    "scale": lambda update: {name: 100 * tensor for name, tensor in update.items()},
    "shape": _wrong_shape,
}
"""Faults that change an update."""

FAULTS = (*UPDATES, "zero_patients", "raise", "hang")


def check_faults(faults: Mapping[str, str], sites: list[str]) -> None:
    """Refuse a fault or a site that there is not."""
    for site, fault in faults.items():
        if site not in sites:
            raise ConfigError(f"faults.{site}: no such site; there are {', '.join(sites)}")
        if fault not in FAULTS:
            raise ConfigError(f"faults.{site}={fault}: must be one of {', '.join(FAULTS)}")


def fault_mod(faults: Mapping[str, str], name_of: Callable[[Context], str]) -> Mod:
    """Make a Flower mod by which the named sites fail when they are asked to train."""

    def mod(message: Message, context: Context, inner: ClientAppCallable) -> Message:
        fault = faults.get(name_of(context))
        if fault is None or message.metadata.message_type != "train":
            return inner(message, context)
        if fault == "raise":
            raise RuntimeError("a fault that was asked for")
        if fault == "hang":
            time.sleep(1e6)
        codec = Request.from_records(message.content).config.codec
        reply = Reply.from_records(inner(message, context).content)
        return Message(_spoilt(reply, fault, codec).to_records(), reply_to=message)

    return mod


def _spoilt(reply: Reply, fault: str, codec: str) -> Reply:
    if reply.status != "ok" or fault == "zero_patients":
        return replace(reply, patients=0)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        Path(file.name).write_bytes(reply.update)
        coded = CodedUpdate(Path(file.name), codec)
        update = {name: coded.tensor(name) for name in coded.names}
    return replace(reply, update=encode(UPDATES[fault](update), codec))
