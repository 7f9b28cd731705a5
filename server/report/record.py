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
from gliofed.server.report.series import attempted, axis, finished, headline, validation
from gliofed.server.report.table import measured_patients, patients_behind
from gliofed.shared.events import Event, read_events
from gliofed.shared.parse import MALFORMED, ConfigError
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
    chosen: str | None = None
    """The metric to show first; None: that of the run's task."""

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
        return finished(self.events)

    @property
    def axis(self) -> list[int]:
        """Numbers of the rounds on an axis."""
        return axis(self.events)

    @cached_property
    def attempts(self) -> list[Event]:
        """Every round by its number, also one that failed; of several tries the last."""
        return [*attempted(self.events).values()]

    @cached_property
    def metric(self) -> str:
        """The metric to show first."""
        task = TASKS.get(str(self.run.get("task")))
        return self.chosen or (task.headline if task else headline(self.events))

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
        return validation(self.events, metric)

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
            return "test", last["sites"], last["global"], measured_patients(last["sites"])
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

    @property
    def note(self) -> str:
        """What must be said of its figures."""
        return "synthetic data" if self.synthetic else ""

    @property
    def budget(self) -> float | None:
        """Epsilon of the whole run; None: not private, or not known."""
        private = (self.setting("privacy", "mechanism") or "none") != "none"
        return self.setting("privacy", "epsilon") if private else None


def read_record(out: Path, metric: str | None = None) -> Record:
    """Read a run's folder, or a copy of some of its files. Raises ConfigError: one of them is damaged."""
    files = SimulationFolder(out)
    return Record(
        name=out.resolve().name,
        description=read_json(files.description, dict) or {},
        events=read_events(RunFolder(out).history),
        comparison=read_json(files.comparison, dict),
        slices=read_json(files.slices, dict),
        model=_model(ModelFolder(files.model)),
        best=_model(ModelFolder(files.best)),
        provenance=read_json(ModelFolder(files.model).provenance, list),
        chosen=metric,
    )


def _model(folder: ModelFolder) -> Event | None:
    """The hash of the weights that a run left, and their round."""
    about = read_json(folder.description, dict)
    with suppress(FileNotFoundError), folder.weights.open("rb") as file:
        return about and {"round": about.get("round"), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return None


def read_json(path: Path, kind: type) -> Any:
    """Read a file that holds a `kind`; None where there is none. Raises ConfigError where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except MALFORMED:
        found = None
    if not isinstance(found, kind):
        raise ConfigError(f"{path}: is damaged; put it back from a copy, or remove it")
    return found


def number(value: Any) -> float:
    """A figure of the history; NaN for null."""
    return math.nan if value is None else float(value)


def word(metric: str) -> str:
    """A metric as a reader writes it.

    >>> word("dice"), word("dice_et"), word("dice_change"), word("hd95"), word("auc"), word("accuracy")
    ('Dice', 'Dice ET', 'Dice change', 'HD95', 'AUC', 'accuracy')
    """
    names = {"dice": "Dice", "hd95": "HD95", "auc": "AUC", "f1": "F1", "jaccard": "Jaccard", "tp": "TP", "fp": "FP"}
    names |= {"tn": "TN", "fn": "FN"}
    first, *rest = metric.split("_")
    return " ".join(
        [names.get(first, first), *(each if each in ("low", "high", "change") else each.upper() for each in rest)]
    )
