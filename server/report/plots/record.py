"""What figures of a run are drawn from: its history, and what else its folder has."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliofed.server.report.plots.series import Events, finished, headline
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import SimulationFolder


@dataclass(frozen=True)
class Record:
    """One run."""

    events: Events
    metric: str
    """The one to show first."""
    title: str
    note: str = ""
    """What must be said of its figures."""
    budget: float | None = None
    """Epsilon of the whole run; None: not private, or not known."""
    comparison: Mapping[str, Any] | None = None
    """What is in comparison.json; None: no baselines."""

    @property
    def rounds(self) -> list[int]:
        """The finished rounds; 0 before them where the run began with given weights, which were measured."""
        began = [0 for event in self.events if event["event"] == "initial"]
        return [*began[:1], *(event["round"] for event in finished(self.events))]


def record_of(run: Path, events: Events, metric: str | None = None) -> Record:
    """The record of a run's folder, or of a copy that has only its history.

    Raises ConfigError where run.json or comparison.json is damaged.
    """
    files = SimulationFolder(run)
    facts, comparison = _read(files.description) or {}, _read(files.comparison)
    privacy = facts.get("run", {}).get("privacy", {})
    source = facts.get("simulation", {}).get("data", {}).get("source", "folder")
    return Record(
        events,
        metric or headline(events),
        run.resolve().name,
        "" if source == "folder" else "synthetic data",
        privacy.get("epsilon") if privacy.get("mechanism", "none") != "none" else None,
        comparison,
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise ConfigError(f"{path}: is damaged; put it back from a copy, or remove it") from None
