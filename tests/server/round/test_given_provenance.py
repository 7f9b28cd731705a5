"""A provenance that comes with given weights: what it may hold, and how long it may be."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from left_model import edit, given, start

from gliofed.server.round.given import read_given
from gliofed.server.round.model import export_model, first_state
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError
from gliofed.shared.provenance import LARGEST, read_provenance
from gliofed.shared.run_folder import RunFolder

Make = Callable[..., RunConfig]

ODD: dict[str, object] = {
    "NaN, which is no JSON": {"sites": float("nan")},
    "infinity": {"privacy": {"epsilon": float("inf")}},
    "a command for the terminal": {"run_id": "\x1b[2J"},
    "half a letter": {"run_id": "\ud800"},
    "a text without end": {"run_id": "a" * 10_000},
    "lists in lists, of which each has a line when they are written": {"sites": [[[[1]]]]},
    "a group in a group": {"privacy": {"epsilon": {}}},
    "a number for a group": {"patients": 3},
    "a text for a number": {"privacy": {"mechanism": "dp_sgd", "epsilon": "lots"}},
    "a number of thousands of digits": {"sites": 10**4000},
}


@pytest.mark.parametrize("name", ODD)
def test_a_provenance_that_could_not_be_written_or_shown_is_refused(left: Path, name: str) -> None:
    """It enters the new run's folder and its report, and is written again beside each of its models."""
    edit(left, lambda chain: chain[0].update(ODD[name]))
    with pytest.raises(ConfigError, match=r"provenance.json: damaged \(.*\); copy the whole folder again"):
        read_given(left)


@pytest.mark.slow
def test_a_provenance_leaves_room_for_the_new_run(left: Path, tmp_path: Path, run_config: Make) -> None:
    """Without it, a run of days ended with its model unwritten. What is there takes more room when it is indented."""

    def lengthen(chain: list[dict[str, Any]]) -> None:
        entry = chain[0] | {f"key {number}": number for number in range(60)} | {"init_sha256": None}
        chain[:] = [entry, *[entry | {"init_sha256": entry["weights_sha256"]}] * 600]

    edit(left, lengthen)
    file = left / "model/provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()), separators=(",", ":")))
    assert file.stat().st_size < LARGEST
    with pytest.raises(ConfigError, match=f"provenance.json: larger than {LARGEST} bytes with the new run"):
        read_given(left)
    edit(left, lambda chain: chain.__delitem__(slice(400, None)))
    files, run = RunFolder(tmp_path / "new"), start(tmp_path / "new", left, run_config())
    state, _ = first_state(run, files)
    export_model(files, files.model, run, "b" * 32, replace(state, round=1))
    assert len(read_provenance(files.model, given(files.model).sha256)) == 401
