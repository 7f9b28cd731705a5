"""A run's history as a table for pandas: a row a site and round, and a row of all sites together."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gliofed.server.report.series import Events, training_loss
from gliofed.server.report.table import measured_patients, patients_behind
from gliofed.shared.parse import ConfigError

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
TEXTS = ("event", "model", "site", "status", "reason")
INTEGERS = ("round", "patients", "evaluated", "bytes_down", "bytes_up")
COLUMNS = ("event", "model", "round", "site", "status", "reason", "patients", "train_loss", "evaluated")
LAST = ("share", "size", "clipped", "epsilon", "bytes_down", "bytes_up", "seconds")
"""After the columns of the metrics."""

Row = dict[str, Any]


def run_frame(events: Events) -> "pd.DataFrame":
    """The frame that `gliofed.read_run` returns. Raises ConfigError where pandas is not installed."""
    try:
        import pandas as pd
    except ImportError:
        raise ConfigError("gliofed.read_run: pandas is not installed; pip install 'gliofed[frame]'") from None
    rows = [row for event in events for row in _rows(event)]
    metrics = dict.fromkeys(name for row in rows for name in row if name not in (*COLUMNS, *LAST))
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *metrics, *LAST])
    numbers = [*metrics, "train_loss", *(name for name in LAST if name not in INTEGERS)]
    kinds = {"str": TEXTS, "Int64": INTEGERS, "float64": numbers}
    return frame.astype({name: kind for kind, names in kinds.items() for name in names})


def _rows(event: Mapping[str, Any]) -> Iterator[Row]:
    kind = event["event"]
    if kind in ("initial", "round", "round_failed"):
        yield from _scores(event, {"event": kind, "round": event["round"]}, event)
    elif kind == "test":
        for model, scores in event["models"].items():
            yield from _scores(scores, {"event": kind, "model": model, "round": scores["round"]}, event)


def _scores(scores: Mapping[str, Any], head: Row, event: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each site, and then one for all of them, which has no status."""
    for site, line in sorted(scores["sites"].items()):
        known = {name: line.get(name) for name in ("status", "reason", "patients", "evaluated", *LAST)}
        loss = (line.get("train") or {}).get("loss")
        yield {**head, "site": site, **known, "train_loss": loss, **(line.get("evaluate") or {})}
    why = event.get("reason") or event.get("evaluation_failed")
    if head.get("model") == "last":  # of this model alone is said why nobody measured it
        why = event.get("failed")
    together = {"reason": why, "seconds": event["seconds"], "epsilon": event.get("epsilon")}
    yield {**head, "site": ALL, **together, **_sums(scores, head), **(scores.get("global") or {})}


def _sums(scores: Mapping[str, Any], head: Row) -> Row:
    """What is of all sites in a row: who counted, what they learned from, and what travelled."""
    lines = scores["sites"].values()
    sums = {key: sum(line.get(key) or 0 for line in lines) for key in ("bytes_down", "bytes_up")}
    if not head["event"].startswith("round"):  # nobody trained
        return {"evaluated": measured_patients(scores["sites"]), **sums}
    loss = training_loss([{**scores, "event": "round"}])[head["round"]]
    counted = [line["patients"] for line in lines if line["status"] == "counted"]
    patients = None if None in counted else sum(counted)
    return {"evaluated": patients_behind(dict(scores)), "train_loss": loss, "patients": patients, **sums}
