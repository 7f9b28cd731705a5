"""Typed requests and replies, to and from Flower's records."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from gliofed.shared.algorithms import kept_of
from gliofed.shared.config import MOST_ROUNDS, RunConfig
from gliofed.shared.parse import MALFORMED, is_site_name, parse
from gliofed.shared.signatures import records_sha256

CODES = {
    "ok": "done",
    "policy": "the site's policy does not allow it",
    "hours": "it is outside the hours in which the site takes part",
    "rounds_a_day": "the site has trained as many rounds in a day as its policy allows",
    "readings": "the site has answered as many different readings of its data as its policy allows",
    "too_few_patients": "the site has fewer training patients than its policy requires",
    "data": "the site's data cannot be used",
    "changed_file": "a file in the site's cohort has changed since the cohort was frozen",
    "too_fine": "the run's data.spacing makes a scan of the site larger than its policy allows",
    "no_cases": "the site found no cases in its folder",
    "no_training": "all usable patients of the site are declared for validation or test",
    "no_series": "no patient of the site has enough visits for a series",
    "missing_mask": "no case of the site has a mask",
    "no_grade": "no patient of the site has a grade",
    "two_grades": "patients of the site have two grades each",
    "no_label": "no patient of the site has the value that is to be learned",
    "two_labels": "patients of the site have two values each of what is to be learned",
    "missing_modality": "no case of the site has every modality that the run reads",
    "label_values": "the site's masks have values that its label scheme does not have",
    "budget": "the site's privacy budget does not allow it",
    "ledger": "the site's privacy ledger cannot be relied on",
    "ledger_busy": "another run at the site is using its privacy ledger",
    "audit": "the site cannot write its audit log",
    "withheld": "the site keeps its metrics to itself",
    "few_validation": "the site has fewer validation or test patients than its policy requires",
    "undisclosed": "only the site's log says why: in a private run the reason could reveal something about a patient",
    "device": "the device that the site is set to use is not available",
    "config": "the site's own configuration has an error",
    "protocol": "the request is malformed, or beyond the limits of any run",
    "out_of_memory": "the site ran out of memory, even with a smaller patch if there was one to try",
    "state": "what the site kept from the run is gone; the aggregator can let it start anew",
    "timeout": "the site did not finish within its own time limit",
    "error": "the site's program failed",
}
"""Why a site did not do what it was asked. The code alone leaves a site; what went wrong is in the site's log."""

FLOWER_ERRORS = {
    1: "the site's app could not be loaded",
    2: "the site's program failed",
    3: "its reply did not arrive",
    4: "its reply was no longer there",
    5: "the site went away",
    7: "the site did not approve this code",
    8: "the site's program was ended",
}
"""Flower's errors, sent in the place of a reply, in words; the reason that comes with one is not repeated: it may quote
a file's name."""

LATE = 1000
"""Code of the error that stands for a site that did not answer in time; Flower's own codes are small."""

MOST_NUMBERS = 64
"""Metrics and counts in one reply."""
LARGEST = 1e9
"""Of any of them."""
LONGEST_CONFIG = 2**23
"""Characters of a run's config as JSON; as many expected sites as a run may have, with long names, have 6.7e6."""

_HASH = "[0-9a-f]{64}"
_EVIDENCE = {"head": _HASH, "signature": "[A-Za-z0-9+/=]{1,160}", "certificate": "[A-Za-z0-9+/=]{1,4000}"}
_EVIDENCE |= {"parent": _HASH, "part": "test"}
_AFTER = ("head", "signature")
"""What enters a reply after its receipt was written."""

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
    """safetensors, to train with the groups that are sent beside them; empty when a site is asked to prepare."""
    parent: str = ""
    """SHA-256 of the site's last update that counted, of a run in which sites keep something: it names the state that
    the site goes on from. Empty: from none. The receipts of that update have it, however often it was sent."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """Of all sites, by name, at the server; each is sent its own."""
    part: str = ""
    """Of an evaluation: test, whose patients are measured when the run has ended. Empty: validation."""
    head: str = ""
    """Of the server's audit log: the hash of the line that notes this request. The site notes it in its own log."""
    signature: str = ""
    """The server's, of what the site's log says of this request; empty in a simulation."""
    certificate: str = ""
    """Of the signature's key: DER, base64."""

    @cached_property
    def weights_sha256(self) -> str:
        """Of the weights, in hex, for the audit logs of both ends; computed once, however many sites are asked."""
        return hashlib.sha256(self.weights).hexdigest()

    @property
    def key(self) -> str:
        """Name of the site's answer: the same request gets the same bytes."""
        what = hashlib.sha256(f"{self.config.hash}{self.weights_sha256}{self.parent}".encode())
        return f"{self.run_id}-{self.round:04d}-{what.hexdigest()[:16]}"

    def to_records(self) -> RecordDict:
        """As Flower's records."""
        head = ConfigRecord({"run_id": self.run_id, "round": self.round})
        head["config"], head["config_hash"], head["head"] = self.config.as_json, self.config.hash, self.head
        head["signature"], head["certificate"] = self.signature, self.certificate
        head["parent"], head["part"] = self.parent, self.part
        return RecordDict({"request": head, "weights": _array(self.weights)})

    @classmethod
    def from_records(cls, records: RecordDict) -> "Request":
        """Read a request; the config must have the hash that it was sent with.

        Nothing is built and no memory is taken for what it says: each value is bounded, and so is the JSON's length.
        """
        try:
            head = records.config_records["request"]
            text, number = head["config"], head["round"]
            if not isinstance(text, str) or len(text) > LONGEST_CONFIG:
                raise MessageError(f"a config that is no text of at most {LONGEST_CONFIG} characters")
            if not isinstance(number, int) or not 0 <= number <= MOST_ROUNDS:
                raise MessageError(f"a round that is no number from 0 to {MOST_ROUNDS}")
            config = parse(RunConfig, text, "run")
            evidence: dict[str, Any] = {key: _checked(head, key) for key in _EVIDENCE}
            request = cls(
                run_id=str(head["run_id"]),
                round=number,
                config=config,
                weights=records.array_records["weights"]["bytes"].data,
                **evidence,
            )
            sent = head["config_hash"]
        except (KeyError, ValueError) as error:
            raise MessageError(f"no request: {error}") from None
        if request.parent and not kept_of(config):
            raise MessageError("a state to go on from, in a run of which sites keep nothing")
        if request.part and config.data.test is None:
            raise MessageError("a test, in a run without data.test")
        if not is_site_name(request.run_id):  # it becomes a file's name at the site
            raise MessageError("no run's id")
        if config.hash != sent:
            raise MessageError(f"config hash {config.hash[:12]} is not the {str(sent)[:12]} that was sent")
        if config.as_json != text:  # a key given twice, say: others could read another run in it
            raise MessageError("a config that is not as gliofed writes it: sorted keys, each once, and every value")
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
    """Coded, with the groups that are returned beside it."""
    head: str = ""
    """Of the site's audit log: the hash of the line that is this reply's receipt. But for the signature it is the one
    thing that leaves and is not in the receipt, whose own hash it is; whoever has the line can check it, and the server
    notes it."""
    signature: str = ""
    """The site's, of what the server's log says of this reply; empty in a simulation."""
    records: str = field(default="", compare=False)
    """Of a reply that came: SHA-256 of all that it holds, as `gliofed.shared.signatures.records_sha256` makes it."""

    @cached_property
    def update_sha256(self) -> str:
        """Of the update, in hex; computed once."""
        return hashlib.sha256(self.update).hexdigest()

    def to_records(self) -> RecordDict:
        """As Flower's records; the metric record has num-examples, as Flower's own strategies expect."""
        head = {"site": self.site, "status": self.status, "code": self.code, "left_out": json.dumps(self.left_out)}
        head["head"], head["signature"] = self.head, self.signature
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
            if status not in get_args(Status) or code not in CODES:
                raise MessageError(f"no such status or code: {status[:20]!r}, {code[:20]!r}")
            _check_numbers(numbers, left_out)
            return cls(
                site=str(head["site"]),
                status=status,  # type: ignore[arg-type]  # one of them, by the line above
                code=code,
                patients=int(numbers.pop("num-examples")),
                steps=int(numbers.pop("steps")),
                epsilon=numbers.pop("epsilon", None),
                metrics=numbers,
                left_out=left_out,
                update=records.array_records["update"]["bytes"].data,
                **{key: _checked(head, key) for key in _AFTER},
                records=records_sha256(describe_records(records)),
            )
        except MALFORMED as error:
            raise MessageError(f"no reply: {error}") from None


def error_words(code: int) -> str:
    """Say what one of Flower's errors means."""
    return FLOWER_ERRORS.get(code, f"Flower's error {code}")


def describe_records(records: RecordDict) -> list[dict[str, Any]]:
    """Describe all that a reply's records hold, but its head and signature: of each array and each record of values
    its name, its type and shape, and number and SHA-256 of its bytes. Values are bytes as JSON with sorted keys.
    """
    parts: list[dict[str, Any]] = []
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                about = {"name": f"{name}/{key}", "type": array.dtype, "shape": list(array.shape)}
                parts.append({**about, **_measure(array.data)})
        else:
            values = {key: value for key, value in record.items() if name != "reply" or key not in _AFTER}
            text = json.dumps(values, sort_keys=True, separators=(",", ":"))
            parts.append({"name": name, "type": type(record).__name__, **_measure(text.encode())})
    return parts


def _measure(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _checked(record: ConfigRecord, key: str) -> str:
    """A hash, a signature or a certificate that came with a message, empty where none did; it enters a log."""
    value = str(record.get(key, ""))
    if value and re.fullmatch(_EVIDENCE[key], value) is None:
        raise MessageError(f"a {key} that is none")
    return value


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
