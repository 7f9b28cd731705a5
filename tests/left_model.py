"""Models that a run left, to start from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gliofed.server.round.given import Given, read_given
from gliofed.server.round.model import export_model, first_state
from gliofed.shared.config import RunConfig
from gliofed.shared.run_folder import RunFolder


def leave(folder: Path, run: RunConfig) -> Path:
    """A run's folder with a model/ and a best/, as if it had trained for three rounds."""
    files, chosen = RunFolder(folder), {"validation": {"dice": 0.5, "patients": 12}}
    state, _ = first_state(run, files)
    export_model(files, files.model, run, "a" * 32, replace(state, round=3))
    export_model(files, files.best, run, "a" * 32, replace(state, round=2), chosen)
    return folder


def given(init: Path) -> Given:
    found = read_given(init)
    assert found is not None
    return found


def start(folder: Path, init: Path, run: RunConfig) -> RunConfig:
    """Take the weights into a new run's folder, and the run that starts from them."""
    weights = given(init)
    weights.check(run)
    weights.keep(RunFolder(folder))
    return replace(run, init=weights.sha256)


def edit(left: Path, change: Callable[[list[dict[str, Any]]], object]) -> Path:
    file = left / "model/provenance.json"
    chain = json.loads(file.read_text())
    change(chain)
    file.write_text(json.dumps(chain))
    return left
