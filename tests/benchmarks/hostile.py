"""How long a hospital takes to refuse a request that a server sends to do harm, beside judging an honest one."""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from flwr.app import RecordDict

from gliofed.shared.sizes import outline
from gliofed.simulation.settings import parse_settings
from tests.hostile import Hospital, configs, records, weights
from tests.small_run import composed

REPEATS = 5


def measure() -> dict[str, float]:
    """Milliseconds, one thread, with the audit log's lines; a hospital without cases answers an honest one with that.

    Each is the least of REPEATS in turn. Nothing is kept from one to the next, since each message is a process.
    """
    torch.set_num_threads(1)
    run = parse_settings(composed())[0]
    with tempfile.TemporaryDirectory() as folder:
        hospital = Hospital(Path(folder))
        asked = {"honest": records(run)} | {name: records(run, config=text) for name, text in configs(run).items()}
        asked |= {f"weights: {name}": records(run, weights=data) for name, data in weights(run).items()}
        hospital.answer(asked["honest"])  # what any request loads
        seconds = {name: min(_seconds(hospital, sent) for _ in range(REPEATS)) for name, sent in asked.items()}
    honest = seconds.pop("honest")
    slowest = max(seconds, key=lambda name: seconds[name])
    figures = {"an honest request": honest, "a refusal, the median": median(seconds.values())}
    figures[f"the slowest ({slowest[:60]})"] = seconds[slowest]
    milliseconds = {name: round(1e3 * value, 2) for name, value in figures.items()}
    return {**milliseconds, "ratio of the slowest": round(seconds[slowest] / honest, 2)}


def _seconds(hospital: Hospital, sent: RecordDict) -> float:
    outline.cache_clear()
    start = time.perf_counter()
    code = hospital.answer(sent)
    seconds = time.perf_counter() - start
    assert code in ("protocol", "no_cases")
    return seconds
