"""What the description of a run's model says."""

from dataclasses import replace
from pathlib import Path

import pytest
from left_model import leave
from small_run import composed

from gliofed.shared.exported import find_export, read_export
from gliofed.shared.run_folder import ModelFolder
from gliofed.simulation.settings import parse_settings


@pytest.mark.parametrize("folder", ["model", "best"])
def test_it_has_the_run_but_names_no_site(tmp_path: Path, folder: str) -> None:
    """A hospital trains its own reference by it; whoever else gets the model learns nothing of who took part."""
    run = parse_settings(composed("data.test=0.2"))[0]
    named = replace(run, round=replace(run.round, expected=("charite", "lmu")))
    model = find_export(leave(tmp_path, named) / folder)
    assert read_export(model).run == replace(run, round=replace(run.round, expected=("unnamed-1", "unnamed-2")))
    texts = [path.read_text() for path in (ModelFolder(model).description, ModelFolder(model).provenance)]
    assert not [text for text in texts if "charite" in text or "lmu" in text]
