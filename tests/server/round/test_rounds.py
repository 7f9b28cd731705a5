"""The server's step, apart from any site."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gliofed.server.round.answers import refusal
from gliofed.server.round.audit import hold_audit
from gliofed.server.round.history import History
from gliofed.server.round.lines import line_of
from gliofed.server.round.rounds import _Run, federate
from gliofed.server.round.sites import Federation
from gliofed.server.round.spool import Spool
from gliofed.server.round.state import State
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply
from gliofed.shared.parse import ConfigError


def test_buffers_take_their_mean_and_a_variance_stays_one(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    """int8 codes a tensor with one scale: a small variance beside a large one may come out below zero."""
    nobody: Any = None
    run = _Run(run_config(), tmp_path, History(tmp_path / "history.jsonl"), nobody, nobody, "run", nobody)
    weights = {"w": torch.ones(1), "norm.running_mean": torch.zeros(2), "norm.running_var": torch.tensor([0.2, 1.0])}
    update = {"w": torch.ones(1), "norm.running_mean": -torch.ones(2), "norm.running_var": torch.tensor([-0.3, 1.0])}
    moved, _ = run.step(State(round=0, weights=weights), update, ["w"])
    assert moved["w"].tolist() == [2.0]
    assert moved["norm.running_mean"].tolist() == [-1.0, -1.0]
    assert moved["norm.running_var"].tolist() == [0.0, 2.0]


def test_what_a_site_left_out_is_part_of_the_reason() -> None:
    """Where no case passed there is no update that could carry the counts."""
    reply = Reply(site="a", status="declined", code="data", left_out={"truncated": 2, "bad_crc": 1})
    assert refusal(reply).reason == "the site's data cannot be used (left out: 1 bad_crc, 2 truncated)"


@pytest.mark.parametrize(("patients", "reason"), [(36, None), (35, "left out: 3 label_values, 1 truncated")])
def test_a_site_that_left_out_many_cases_counts_and_says_so(
    run_config: Callable[..., RunConfig], tmp_path: Path, patients: int, reason: str | None
) -> None:
    """Else a site with a wrong label scheme counts with the few patients that its masks happen to fit."""
    left_out = {"label_values": 3, "truncated": 1}
    spool = Spool(tmp_path / "spool", 1, "fp32")
    spool.add("a", Reply(site="a", patients=patients, steps=1, left_out=left_out, update=b"u"), 100, 1)
    (reply,) = spool.replies()
    line = line_of(reply, {}, 0, run_config())
    assert (line["status"], line["left_out"], line["reason"]) == ("counted", left_out, reason)


def test_a_history_that_another_server_writes_is_left_alone(
    run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """What looks like a line that was cut off may be one that is being written."""
    nobody: Any = None
    history = tmp_path / "history.jsonl"
    history.write_text('{"event":"start"}\n{"event":"ro')
    with hold_audit(tmp_path), pytest.raises(ConfigError, match="wait until it ends"):
        federate(nobody, Federation(config=run_config(), out=tmp_path, run_id="run"))
    assert history.read_text().endswith('{"event":"ro')
