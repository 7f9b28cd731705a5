"""What a site does where its memory does not suffice: it tries the round once more, with a smaller patch."""

import gc
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from gliofed.shared.files import write_json
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS

if TYPE_CHECKING:  # PyTorch comes with it, whose own import may be what memory does not suffice for
    from gliofed.client.round.job import Job
    from gliofed.shared.messages import Reply

LOG = logging.getLogger("gliofed.site")
MULTIPLE = 8
"""Voxels: a smaller patch has edges of so many times this, since models pad to their own step, 16 at most."""

Patch = tuple[int, int, int]


def with_less_memory(job: "Job", work: Callable[["Job"], "Reply"]) -> "Reply":
    """Do the work; where memory does not suffice, once again with half the patch, and so for the rest of the run.

    A label is read off the whole block, so there is no smaller patch for that. Whatever `work` charges, it charges
    again.
    """
    smaller = known_patch(job.site, job.request.run_id)
    try:
        return work(_with(job, smaller) if smaller else job)
    except Exception as error:
        smaller = None if smaller else halved(job.request.config.data.patch)
        if not ran_out(error) or TASKS[job.request.config.task].label or not smaller:
            raise
    # Not before here: the error holds its frames, and they the tensors.
    gc.collect()
    if job.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    from gliofed.client.round.audit import note  # Flower comes with it, and prediction needs none

    run, round = job.request.run_id, job.request.round
    LOG.warning("out of memory in round %d: once again with a patch of %s, for the rest of the run", round, smaller)
    note(job.site, {"event": "smaller_patch", "run_id": run, "round": round, "patch": list(smaller)})
    write_json(job.site.folder.smaller_patch, {"run_id": run, "patch": list(smaller)})
    return work(_with(job, smaller))


def ran_out(error: Exception) -> bool:
    """Whether memory, of the machine or of its GPU, did not suffice."""
    message = str(error)
    return isinstance(error, MemoryError) or "out of memory" in message or "allocate memory" in message


def halved(patch: Patch) -> Patch | None:
    """Half of each edge, voxels, rounded up to a multiple of MULTIPLE; None where that is no smaller.

    >>> halved((96, 96, 16)), halved((20, 20, 8)), halved((8, 8, 4))
    ((48, 48, 8), (16, 16, 8), None)
    """
    depth, height, width = (min(edge, ceil(edge / 2 / MULTIPLE) * MULTIPLE) for edge in patch)
    return (depth, height, width) if (depth, height, width) != patch else None


def known_patch(site: SiteConfig, run_id: str) -> Patch | None:
    """The smaller patch that an earlier round of the run came down to, if any."""
    try:
        known = json.loads(site.folder.smaller_patch.read_text())
        depth, height, width = known["patch"]
        return (int(depth), int(height), int(width)) if known["run_id"] == run_id else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with(job: "Job", patch: Patch) -> "Job":
    config = job.request.config
    config = replace(config, data=replace(config.data, patch=patch))
    return replace(job, request=replace(job.request, config=config))
