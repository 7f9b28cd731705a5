"""Typed requests and replies, to and from Flower's records."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from shared.config import RunConfig
from shared.parse import is_site_name, parse

CODES = {
    "ok": "done",
    "policy": "the site's policy does not allow it",
    "hours": "it is outside the hours in which the site takes part",
    "rounds_a_day": "the site has trained as many rounds in a day as its policy allows",
    "readings": "the site has answered as many different readings of its data as its policy allows",
    "too_few_patients": "the site has fewer training patients than its policy asks for",
    "data": "the site's data cannot be used",
    "changed_file": "a file of the site's cohort is not what it was when the cohort was frozen",
    "no_cases": "the site found no cases in its folder",
    "no_training": "all usable patients of the site are declared for validation",
    "no_series": "no patient of the site has enough visits for a series",
    "missing_mask": "no case of the site has a mask",
    "no_grade": "no patient of the site has a grade",
    "missing_modality": "no case of the site has every modality that the run reads",
    "label_values": "the site's masks have other values than its label scheme",
    "budget": "the site's privacy budget does not allow it",
    "ledger": "the site's privacy ledger cannot be relied on",
    "ledger_busy": "another run at the site holds its privacy ledger",
    "audit": "the site cannot write its audit log",
    "withheld": "the site keeps its metrics to itself",
    "device": "the site's device is not there",
    "config": "the site's own configuration is not right",
    "protocol": "the request could not be read",
    "out_of_memory": "the site ran out of memory, also with a smaller patch where there is one",
    "timeout": "the site did not finish in the time that it allows",
    "error": "the site's program failed",
}
"""Why a site did not do what it was asked. The code alone leaves a site; what went wrong is in the site's log."""

LATE = 1000
"""Code of the error that stands for a site that did not answer in time; Flower's own codes are small."""

MOST_NUMBERS = 64
"""Metrics and counts in one reply."""
LARGEST = 1e9
"""Of any of them."""

Status = Literal["ok", "declined", "failed"]


class MessageError(ValueError):
    """Records that are not what they should be."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Ask a site to prepare (Flower's query), train or evaluate: the message's type says which."""

    run_id: str
    round: int
    config: RunConfig
    weights: bytes = b""
    """safetensors; empty when a site is asked to prepare."""
    head: str = ""
    """Of the server's audit log: the hash of the line that notes this request. The site notes it in its own log."""

    @cached_property
    def weights_sha256(self) -> str:
        """Of the weights, in hex, for the audit logs of both ends; computed once, however many sites are asked."""
        return hashlib.sha256(self.weights).hexdigest()

    @property
    def key(self) -> str:
        """Name of the site's answer: the same request gets the same bytes."""
        what = hashlib.sha256(f"{self.config.hash}{self.weights_sha256}".encode())
        return f"{self.run_id}-{self.round:04d}-{what.hexdigest()[:16]}"

    def to_records(self) -> RecordDict:
        """As Flower's records."""
        head = ConfigRecord({"run_id": self.run_id, "round": self.round})
        head["config"], head["config_hash"], head["head"] = self.config.to_json(), self.config.hash, self.head
        return RecordDict({"request": head, "weights": _array(self.weights)})

    @classmethod
    def from_records(cls, records: RecordDict) -> "Request":
        """Read a request; the config must have the hash that it was sent with."""
        try:
            head = records.config_records["request"]
            config = parse(RunConfig, str(head["config"]), "run")
            weights = records.array_records["weights"]["bytes"].data
            request = cls(
                run_id=str(head["run_id"]),
                round=int(str(head["round"])),
                config=config,
                weights=weights,
                head=_checked_head(head),
            )
            sent = head["config_hash"]
        except (KeyError, ValueError) as error:
            raise MessageError(f"no request: {error}") from None
        if not is_site_name(request.run_id) or request.round < 0:  # both become a file's name at the site
            raise MessageError("no run's id and round")
        if config.hash != sent:
            raise MessageError(f"config hash {config.hash[:12]} is not the {str(sent)[:12]} that was sent")
        return request


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a site answers: an update, metrics, or a code that says why not."""

    site: str
    status: Status = "ok"
    code: str = "ok"
    patients: int = 0
    """Patients that were trained on, or evaluated on; Flower's num-examples."""
    steps: int = 0
    """Optimiser steps of the update."""
    metrics: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    """Patients that the site could not use, by code."""
    epsilon: float | None = None
    """Of each patient at the site so far, over all runs of its study; rounded up. None: not told."""
    update: bytes = b""
    head: str = ""
    """Of the site's audit log: the hash of the line that is this reply's receipt. It is the one thing that leaves and
    is not in the receipt, whose own hash it is; whoever has the line can check it, and the server notes it."""

    def to_records(self) -> RecordDict:
        """As Flower's records; the metric record has num-examples, as Flower's own strategies expect."""
        head = {"site": self.site, "status": self.status, "code": self.code, "left_out": json.dumps(self.left_out)}
        head["head"] = self.head
        numbers: dict[str, int | float | list[int] | list[float]] = {"num-examples": self.patients, "steps": self.steps}
        numbers |= self.metrics | ({} if self.epsilon is None else {"epsilon": self.epsilon})
        return RecordDict(
            {"reply": ConfigRecord(dict(head)), "metrics": MetricRecord(numbers), "update": _array(self.update)}
        )

    @classmethod
    def from_records(cls, records: RecordDict) -> "Reply":
        """Read a reply, or raise MessageError: it comes from another house."""
        try:
            head = records.config_records["reply"]
            numbers = {name: float(str(value)) for name, value in records.metric_records["metrics"].items()}
            left_out = {str(code): int(count) for code, count in json.loads(str(head["left_out"])).items()}
            status, code = str(head["status"]), str(head["code"])
            if status not in ("ok", "declined", "failed") or code not in CODES:
                raise MessageError(f"no such status or code: {status[:20]!r}, {code[:20]!r}")
            _check_numbers(numbers, left_out)
            return cls(
                site=str(head["site"]),
                status=status,  # type: ignore[arg-type]  # one of the three, by the line above
                code=code,
                patients=int(numbers.pop("num-examples")),
                steps=int(numbers.pop("steps")),
                epsilon=numbers.pop("epsilon", None),
                metrics=numbers,
                left_out=left_out,
                update=records.array_records["update"]["bytes"].data,
                head=_checked_head(head),
            )
        except (KeyError, ValueError, ArithmeticError, AttributeError, TypeError, RecursionError) as error:
            raise MessageError(f"no reply: {error}") from None


def leaving(records: RecordDict) -> list[dict[str, Any]]:
    """Describe all that a reply's records hold, but its head: of each array and each record of values its name, its
    type and shape, and number and SHA-256 of its bytes. Values are bytes as JSON with sorted keys.
    """
    parts: list[dict[str, Any]] = []
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                about = {"name": f"{name}/{key}", "type": array.dtype, "shape": list(array.shape)}
                parts.append({**about, **_measure(array.data)})
        else:
            values = {key: value for key, value in record.items() if (name, key) != ("reply", "head")}
            text = json.dumps(values, sort_keys=True, separators=(",", ":"))
            parts.append({"name": name, "type": type(record).__name__, **_measure(text.encode())})
    return parts


def _measure(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _checked_head(record: ConfigRecord) -> str:
    """The head that came with a message; it enters a log."""
    head = str(record.get("head", ""))
    if re.fullmatch("([0-9a-f]{64})?", head) is None:
        raise MessageError("a head that is no SHA-256")
    return head


def _check_numbers(numbers: Mapping[str, float], left_out: Mapping[str, int]) -> None:
    """Refuse names and numbers that no site has: they enter means, files and the operator's terminal."""
    if len(numbers) + len(left_out) > MOST_NUMBERS:
        raise MessageError(f"{len(numbers) + len(left_out)} numbers, more than {MOST_NUMBERS}")
    counts = [numbers["num-examples"], numbers["steps"], *left_out.values()]
    if not all(0 <= count <= LARGEST for count in counts):
        raise MessageError(f"a count that is not 0 to {LARGEST:g}")
    for name, value in [*numbers.items(), *left_out.items()]:
        if re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) is None:
            raise MessageError("a name that is not lower case letters, digits and underscores")
        if abs(value) > LARGEST:  # NaN passes: a loss may be that
            raise MessageError(f"{name}={value:g}: over {LARGEST:g}")
    if not numbers.get("epsilon", 0.0) >= 0:  # it goes into files in which NaN is none
        raise MessageError("an epsilon that is no number of at least 0")


def _array(data: bytes) -> ArrayRecord:
    """Bytes as one array, which Flower sends in chunks however large it is."""
    return ArrayRecord({"bytes": Array(dtype="uint8", shape=(len(data),), stype="safetensors", data=data)})
