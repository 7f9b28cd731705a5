"""What there is to report of a run: the files of its folder, read, and the questions that several sections ask."""

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gliofed.server.report.sentences import rests
from gliofed.server.report.table import patients_behind
from gliofed.shared.events import Event, read_events
from gliofed.shared.run_folder import ModelFolder, RunFolder, SimulationFolder
from gliofed.shared.tasks import TASKS


@dataclass(frozen=True)
class Record:
    """One run."""

    name: str
    description: Event
    """run.json; empty where there is none."""
    events: list[Event]
    comparison: Event | None = None
    """comparison.json, where models were compared."""
    slices: Event | None = None
    """Slices of some patients, where a simulation may show them."""
    model: Event | None = None
    """SHA-256 of the weights that the run left, and their round."""
    best: Event | None = None
    """The same of the best round, where one was kept."""
    provenance: list[Event] | None = None
    """The runs that the weights come from, oldest first."""

    @cached_property
    def run(self) -> Event:
        """The run's configuration; empty where it is not known."""
        return dict(self.description.get("run") or {})

    def setting(self, *keys: str) -> Any:
        """A value of the configuration by its path; None where it is not known."""
        value: Any = self.run
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @cached_property
    def rounds(self) -> list[Event]:
        """Rounds that have a result."""
        return [event for event in self.events if event["event"] == "round"]

    @cached_property
    def attempts(self) -> list[Event]:
        """Every round by its number, also one that failed; of several tries the last."""
        tries = {e["round"]: e for e in self.events if e["event"] in ("round", "round_failed")}
        return [tries[number] for number in sorted(tries)]

    @cached_property
    def metric(self) -> str:
        """The metric that the run's task shows first."""
        if (task := self.run.get("task")) in TASKS:
            return TASKS[task].headline
        known = {name for event in self.rounds for name in event.get("global") or {}}
        headlines = [task.headline for task in TASKS.values()]
        return next((name for name in headlines if name in known), headlines[0])

    @property
    def metric_name(self) -> str:
        """The metric in a sentence: Dice is a name."""
        return word(self.metric)

    @cached_property
    def lower_is_better(self) -> bool:
        """Of the headline."""
        return bool(getattr(TASKS.get(str(self.run.get("task"))), "lower_is_better", False))

    @cached_property
    def sites(self) -> list[str]:
        """Names of the sites that take part."""
        lines = [(site, line) for event in self.attempts for site, line in event["sites"].items()]
        return sorted({site for site, line in lines if line["status"] != "not_invited" or rests(line)})

    @property
    def parts(self) -> list[str]:
        """Regions of segmentation, as a reader writes them; none where a metric has no parts."""
        regions = [str(region).upper() for region in self.setting("data", "regions") or ()]
        known = {name for event in self.measured for name in event["global"]}
        known |= (self.final[2] if self.final else {}).keys()
        return [region for region in regions if f"{self.metric}_{region.lower()}" in known]

    @cached_property
    def measured(self) -> list[Event]:
        """Rounds after which there are metrics over all sites; first the weights that were given, where some were."""
        given = [event for event in self.events if event["event"] == "initial"]
        return [event for event in [*given, *self.rounds] if event.get("global")]

    def series(self, metric: str) -> dict[int, float]:
        """A metric over all validation patients by round; NaN where it is undefined."""
        return {event["round"]: number(event["global"].get(metric)) for event in self.measured}

    def site_series(self, metric: str) -> dict[str, dict[int, float]]:
        """The same of each site."""
        found: dict[str, dict[int, float]] = {site: {} for site in self.sites}
        for event in self.measured:
            for site, line in event["sites"].items():
                if site in found and line.get("evaluate"):
                    found[site][event["round"]] = number(line["evaluate"].get(metric))
        return found

    @cached_property
    def lines(self) -> dict[str, list[tuple[int, Event]]]:
        """What the rounds say of each site: the round, and its line."""
        found: dict[str, list[tuple[int, Event]]] = {site: [] for site in self.sites}
        for event in self.attempts:
            for site in found.keys() & event["sites"].keys():
                found[site].append((event["round"], event["sites"][site]))
        return found

    @cached_property
    def epsilons(self) -> dict[int, float]:
        """Epsilon after each round: of the sum, or of the site that has spent most."""
        found = {}
        for event in self.attempts:
            told = [line["epsilon"] for line in event["sites"].values() if line.get("epsilon") is not None]
            if (epsilon := event.get("epsilon", max(told, default=None))) is not None:
                found[event["round"]] = float(epsilon)
        return found

    def patients(self, site: str) -> int | None:
        """Training patients of a site, as it told last."""
        told = [line["patients"] for _, line in self.lines[site] if line.get("patients") is not None]
        return int(told[-1]) if told else None

    def left_out(self, site: str) -> dict[str, int]:
        """Cases that a site left out, by code, as it told last."""
        told = [line["left_out"] for _, line in self.lines[site] if line.get("left_out")]
        return dict(told[-1]) if told else {}

    @cached_property
    def test(self) -> Event | None:
        """The measurement at the end, of patients whom no choice was made on."""
        return next((event for event in reversed(self.events) if event["event"] == "test"), None)

    @cached_property
    def final(self) -> tuple[str, dict[str, Event], Event, int | None] | None:
        """The latest figures of the last model: of test patients where there are some, else of validation patients.

        What they are of, the lines of the sites, the metrics over all, and the number of patients behind those.
        """
        if self.test and (last := self.test["models"].get("last")) and last.get("global"):
            known = [line.get("evaluated") or 0 for line in last["sites"].values() if line.get("evaluate")]
            return "test", last["sites"], last["global"], sum(known)
        if not self.measured:
            return None
        event = self.measured[-1]
        return "validation", event["sites"], event["global"], patients_behind(event)

    @cached_property
    def end(self) -> Event | None:
        """How it ended; None: it has not."""
        return self.events[-1] if self.events and self.events[-1]["event"] == "end" else None

    @cached_property
    def source(self) -> str | None:
        """Where the data come from: mock, phantom, or folder; None: from the hospitals themselves."""
        data = (self.description.get("simulation") or {}).get("data") or {}
        return str(data["source"]) if "source" in data else None

    @property
    def synthetic(self) -> bool:
        """Whether nobody's scans were used."""
        return self.source in ("mock", "phantom")


def read_record(out: Path) -> Record:
    """Read a run's folder. Raises ConfigError: a damaged history; a damaged file beside it is as if it were absent."""
    files = SimulationFolder(out)
    return Record(
        name=out.resolve().name,
        description=_json(files.description, dict) or {},
        events=read_events(RunFolder(out).history),
        comparison=_json(files.comparison, dict),
        slices=_json(files.slices, dict),
        model=_model(ModelFolder(files.model)),
        best=_model(ModelFolder(files.best)),
        provenance=_json(ModelFolder(files.model).provenance, list),
    )


def _model(folder: ModelFolder) -> Event | None:
    """The hash of the weights that a run left, and their round."""
    about = _json(folder.description, dict)
    if about is None or not folder.weights.is_file():
        return None
    with folder.weights.open("rb") as file:
        return {"round": about.get("round"), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _json(path: Path, kind: type) -> Any:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, kind) else None
    return None


def number(value: Any) -> float:
    """A figure of the history; NaN for null."""
    return math.nan if value is None else float(value)


def word(metric: str) -> str:
    """A metric as a reader writes it.

    >>> word("dice"), word("dice_et"), word("hd95"), word("auc"), word("accuracy")
    ('Dice', 'Dice ET', 'HD95', 'AUC', 'accuracy')
    """
    names = {"dice": "Dice", "hd95": "HD95", "auc": "AUC", "f1": "F1", "jaccard": "Jaccard", "tp": "TP", "fp": "FP"}
    names |= {"tn": "TN", "fn": "FN"}
    first, *rest = metric.split("_")
    return " ".join([names.get(first, first), *(each if each in ("low", "high") else each.upper() for each in rest)])
