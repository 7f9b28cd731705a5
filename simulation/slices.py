"""Slices of a simulation's patients for its report, from the model that it left."""

import sys
from collections.abc import Sequence
from pathlib import Path

from gliofed.client.prediction.predict import load
from gliofed.client.prediction.slices import legend, slices
from gliofed.client.round.training import pick_device
from gliofed.shared.exported import find_export, read_export
from gliofed.shared.files import write_json
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.site_config import SiteConfig


def write_slices(out: Path, sites: Sequence[SiteConfig], synthetic: bool) -> None:
    """Write slices.json; a fault is said in one line, and ends nothing.

    Nothing is written where the run left no model, or one of which each site has tensors of its own.
    """
    try:
        folder = find_export(SimulationFolder(out).model)
    except ConfigError:
        return
    try:
        exported = read_export(folder)
        if exported.at_home:
            return
        predictor = load(folder, exported, pick_device(sites[0].device))
        if found := slices(predictor, sites):
            whose = "They are made up." if synthetic else "They are YOUR OWN SCANS: this page shows patients."
            note = f"{whose} {legend(predictor)}"
            write_json(SimulationFolder(out).slices, {"note": note, "slices": found})
    except Exception as error:
        print(f"{SimulationFolder(out).slices}: not drawn: {error!r}"[:300], file=sys.stderr, flush=True)
