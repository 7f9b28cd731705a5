"""How long a hospital takes from a round's request to its reply of one step: with an empty cache, and with a full one.

Across machines each message is a process. In a site's first round it is asked to prepare, and then to train; in the
second to train.
"""

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import torch

from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Request
from gliofed.shared.models import build_model
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.phantom import PhantomConfig, write_phantoms
from gliofed.simulation.settings import parse_settings
from tests.judged_site import prepare, train
from tests.small_run import as_given

PATIENTS = 24
"""Phantoms of four modalities of 240 x 240 x 155 voxels; preparing takes as long as there are patients."""
ASKED = 5.0
"""The first round's, at least, in the second's."""


def measure() -> dict[str, float]:
    """Wall seconds of the first and of the second round's start, one thread."""
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder, "scans")
        write_phantoms(PhantomConfig(patients=PATIENTS, resolution=1.0), scans, 0)
        site = SiteConfig(name="here", root=str(scans), labels="brats2020", work=str(Path(folder, "work")))
        words = ("data=folder", "data.root=x", "data.labels=brats2020", "model=unet", "data.patch=[32,32,32]")
        run, _ = parse_settings(as_given(*words, "train.steps=1", "device=cpu"))
        seconds = {}
        for number, kinds in enumerate((("prepare", "train"), ("train",)), start=1):
            begun = time.perf_counter()
            for kind in kinds:
                _in_a_process(kind, site, run, number)
            seconds[f"round {number}"] = round(time.perf_counter() - begun, 2)
    return {**seconds, "ratio": round(seconds["round 1"] / seconds["round 2"], 1)}


def _in_a_process(kind: str, site: SiteConfig, run: RunConfig, number: int) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_answer, args=(kind, site, run, number))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"{kind} of round {number} failed")


def _answer(kind: str, site: SiteConfig, run: RunConfig, number: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(run.model, len(run.data.modalities), len(run.data.regions))
    weights = weights_to_bytes(travelling(model)) if kind == "train" else b""
    request = Request(run_id="startup", round=number, config=run, weights=weights)
    reply = {"prepare": prepare, "train": train}[kind](site, request)
    assert reply.patients > 0
