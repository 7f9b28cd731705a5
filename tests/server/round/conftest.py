"""Two sites that are asked over a wire."""

from collections.abc import Callable
from pathlib import Path

import pytest
from clock import Clock
from left_model import leave
from lossy_wire import PullsInTurn, Wire, sites_over

import gliofed.server.round.mail
import gliofed.server.round.sites
from gliofed.server.round.answers import Absent
from gliofed.server.round.audit import hold_audit
from gliofed.server.round.pulling import SeparatePulls
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(gliofed.server.round.mail, "SeparatePulls", PullsInTurn)
    return Clock()


@pytest.fixture
def ask(tmp_path: Path, run_config: Callable[..., RunConfig], clock: Clock) -> Callable[..., dict[str, Reply | Absent]]:
    """Train at both sites over a wire; the answers by site, of which there is one each."""

    def train(wire: Wire, lossy: bool = True) -> dict[str, Reply | Absent]:
        config = run_config("round.expected=[a,b]", "round.deadline=300", "round.retry=3")
        with hold_audit(tmp_path) as audit:
            sites = sites_over(wire, config, audit, clock, lossy)
            nodes, absent = sites.roll(1)
            assert not absent
            wire.probes = 0
            answers = list(sites.ask("train", Request(run_id="r", round=1, config=config, weights=b"w"), nodes))
        assert len(answers) == 2
        return dict(answers)

    return train


@pytest.fixture
def separately(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Each message by a thread of its own, as it is between machines; nothing is late while the clock stands."""
    monkeypatch.setattr(gliofed.server.round.mail, "SeparatePulls", SeparatePulls)
    monkeypatch.setattr(clock, "sleep", lambda seconds: None)


@pytest.fixture
def left(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Path:
    return leave(tmp_path / "left", run_config("seed=7"))
