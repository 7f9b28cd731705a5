"""Federated training of 3D brain-MRI models across hospitals.

The packages in this folder are links to those at the top of the repository, where they are edited.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a command that needs neither starts at once
    from pathlib import Path

    import pandas

__version__ = "0.1.0"


def read_run(folder: "str | Path") -> "pandas.DataFrame":
    """Read the history of a run, simulated or of hospitals, from its folder; it may still go on.

    A row is a site in a round; after them the row `all` is all sites together, without a status. `event` is round,
    round_failed, initial (given weights, round 0) or test, where `model` is last or best. The other columns: status,
    reason, patients (who were trained on), train_loss, evaluated (patients behind the metrics), one for each metric
    (loss is that of validation, or of the test), share and size of the update, clipped (by which factor), epsilon,
    bytes_down, bytes_up, and seconds of the whole round, or of the test of all models. What is not known is missing.

    Needs pandas: `pip install 'gliofed[frame]'`. Raises ConfigError without it, and where there is no history.
    """
    from gliofed.server.report.frame import run_frame
    from gliofed.shared.events import events_of
    from gliofed.shared.files import home_path

    return run_frame(events_of(home_path(folder)))
