"""What provenance.json says of a run: from its history alone, and of nobody by name."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from gliofed.server.round.history import Event, History, site_line
from gliofed.server.round.model import export_model
from gliofed.server.round.provenance import entry_of
from gliofed.server.round.rounds import _Run
from gliofed.server.round.state import State
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError
from gliofed.shared.provenance import LARGEST, read_provenance
from gliofed.shared.run_folder import ModelFolder, RunFolder

Make = Callable[..., RunConfig]


def line(status: str = "counted", **known: Any) -> Event:
    return site_line(status=status, **known)


def round_event(number: int, event: str = "round", **sites: Event) -> Event:
    return {"event": event, "round": number, "seconds": 1.0, "sites": {f"hospital-{s}": e for s, e in sites.items()}}


ROUNDS = [
    round_event(1, a=line(patients=10, evaluated=3), b=line(patients=4, evaluated=2), c=line("refused", patients=999)),
    round_event(2, a=line(patients=9, evaluated=3), b=line("late"), d=line("not_invited", evaluated=7)),
    round_event(3, "round_failed", e=line(patients=50)),
    round_event(3, a=line(patients=12), d=line(patients=5)),
]


def state(number: int, **more: Any) -> State:
    return State(round=number, weights={"w": torch.ones(3)}, **more)


@pytest.fixture
def history(out: Path) -> History:
    out.mkdir()
    history = History(RunFolder(out).history)
    for event in ROUNDS:
        history.append(event)
    return history


def test_patients_are_summed_over_sites_by_their_largest_number(history: History, run_config: Make) -> None:
    """Who was refused, and who sent something in a round that failed, has nothing in the model."""
    whole, early = (entry_of(history, run_config(), "run", state(number)) for number in (3, 1))
    assert (whole["sites"], whole["patients"]) == (3, {"training": 12 + 4 + 5, "validation": 3 + 2 + 7, "noisy": False})
    assert (early["sites"], early["patients"]) == (2, {"training": 14, "validation": 5, "noisy": False})
    assert whole["round"] == 3 and whole["weights_sha256"] == hashlib.sha256(state(3).coded_result).hexdigest()


def test_a_round_whose_line_is_not_written_yet_counts(history: History, run_config: Make) -> None:
    newest = round_event(4, b=line(patients=40))
    assert entry_of(history, run_config(), "run", state(4, event=newest))["patients"]["training"] == 12 + 40 + 5
    again = round_event(3, a=line(patients=12), d=line(patients=5))  # after a kill: its line is there
    assert entry_of(history, run_config(), "run", state(3, event=again))["patients"]["training"] == 21


def test_it_names_nobody_and_no_place(history: History, run_config: Make, out: Path) -> None:
    """It travels on with the model."""
    text = json.dumps(entry_of(history, run_config("round.expected=[hospital-a]"), "run", state(3)))
    assert "hospital" not in text and str(out) not in text


def test_metrics_that_stay_home_are_null(out: Path, run_config: Make) -> None:
    out.mkdir()
    history = History(RunFolder(out).history)
    assert entry_of(history, run_config(), "run", state(0))["patients"]["validation"] is None


def test_what_was_spent_is_the_most_that_a_site_told(history: History, run_config: Make) -> None:
    history.append(round_event(4, a=line(patients=9, epsilon=2.5), b=line(patients=7, epsilon=3.5)))
    history.append(round_event(5, a=line(patients=9, epsilon=3.0)))
    entry = entry_of(history, run_config("privacy=dp_sgd", "privacy.delta=1e-5"), "run", state(5))
    spent = {"mechanism": "dp_sgd", "unit": "patient", "epsilon": 3.5, "delta": 1e-5, "test_mode": False}
    assert entry["privacy"] == spent and entry["patients"]["noisy"]


def test_what_was_spent_on_sums_is_that_of_the_last_charge(history: History, run_config: Make) -> None:
    """A sum is charged before it is made, also of a round that fails."""
    for number, epsilon in ((1, 1.0), (2, 1.5)):
        history.append({"event": "charge", "of_round": number, "sigma": 2.0, "delta": 0.05, "epsilon": epsilon})
    privacy = entry_of(history, run_config("privacy=central", "privacy.test_seed=1"), "run", state(2))["privacy"]
    assert privacy == {"mechanism": "central", "unit": "site", "epsilon": 1.5, "delta": 0.05, "test_mode": True}


def test_the_best_round_has_what_the_whole_run_spent(out: Path, run_config: Make) -> None:
    """It was chosen among all rounds; at its own time nobody knew of the later ones."""
    run, files, nobody = run_config("privacy=dp_sgd"), RunFolder(out), cast(Any, None)
    out.mkdir()
    history = History(files.history)
    history.append(round_event(1, a=line(patients=9, epsilon=2.0)))
    export_model(files, files.best, run, "run", state(1))
    history.append(round_event(2, a=line(patients=9, epsilon=4.0)))
    epsilon = lambda: json.loads(ModelFolder(files.best).provenance.read_text())[-1]["privacy"]["epsilon"]  # noqa: E731
    assert epsilon() == 2.0
    _Run(run, out, history, nobody, nobody, "run", nobody).close(state(2))
    assert epsilon() == 4.0
    (entry,) = read_provenance(files.best, hashlib.sha256(ModelFolder(files.best).weights.read_bytes()).hexdigest())
    assert entry["round"] == 1


def test_a_provenance_without_end_is_not_read(out: Path) -> None:
    out.mkdir()
    ModelFolder(out).provenance.write_text("[" + " " * LARGEST + "]")
    with pytest.raises(ConfigError, match="larger than"):
        read_provenance(out, "0" * 64)
