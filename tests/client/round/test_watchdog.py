"""A request that takes too long is answered with a code, and its process ends: also where Python no longer runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from waiting import PATIENCE

from gliofed.client.round.policy import DeclinedError
from gliofed.client.round.watchdog import limit_of, within
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import CODES, Reply
from gliofed.shared.site_config import PolicyConfig

ROOT = Path(__file__).parents[3]
HOSPITAL = """
import sys, time, types
import gliofed.client.round.watchdog
from flwr.app import Context, Message, RecordDict
from gliofed.client.app import make_client_app
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import parse
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.grid import LocalGrid

gliofed.client.round.watchdog.GRACE = {grace}
# Only the work on a request loads it: the SuperNode, which imports much of this too, runs for weeks without.
assert "torch" not in sys.modules
# In place of the real one, which loads PyTorch.
sys.modules["gliofed.client.round.work"] = types.SimpleNamespace(prepare=lambda admitted: ({work}))
site = SiteConfig(name="a", root="scans", labels="mock", work=sys.argv[1], policy=PolicyConfig(max_minutes=0.02))
app = make_client_app(lambda _: site, watched=True)
LocalGrid(app, {{}}, 1, 1.0)
request = Request(run_id="r", round=1, config=parse(RunConfig, sys.argv[2]), head="0" * 64)
answer = app(Message(request.to_records(), 1, "query"), Context(1, 1, {{}}, RecordDict(), {{}}))
print(Reply.from_records(answer.content).code, flush=True)
sys.exit(0)
"""
Ended = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ended(tmp_path: Path, run_config: Callable[..., RunConfig]) -> Ended:
    """A hospital's process whose training is a Python expression, and how it ended; its limit is 1.2 s."""

    def run(work: str, grace: float = 30) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", HOSPITAL.format(work=work, grace=grace), str(tmp_path), run_config().as_json]
        own = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=own)

    return run


@pytest.mark.slow
def test_a_training_that_hangs(ended: Ended, tmp_path: Path) -> None:
    """It is answered, its receipt is there, and the process does not wait for it."""
    done = ended("__import__('logging').getLogger('gliofed.site').warning('half way') or time.sleep(1000)")
    assert (done.returncode, done.stdout.strip()) == (0, "timeout"), done.stderr
    log = (tmp_path / "site.log").read_text()
    assert "not done after 1 s" in log
    assert log.count("half way") == 1, "what the work itself says is in the log, though it is said in another thread"
    assert '"code": "timeout"' in (tmp_path / "audit/audit.jsonl").read_text().splitlines()[-1]


@pytest.mark.slow
def test_a_training_that_keeps_the_interpreter(ended: Ended) -> None:
    """PyDLL keeps the interpreter's lock during the call: nothing of Python can answer, so the kernel ends it."""
    done = ended("__import__('ctypes').PyDLL(None).sleep(1000)", grace=1)
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, ""), done.stderr


def test_what_is_done_in_time_leaves_nothing_behind() -> None:
    """An alarm that stayed would end the process while its reply is on the way."""
    assert within(5, lambda: Reply(site="a", patients=3)).patients == 3
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: Reply(site="a", patients=1 // 0))
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_smaller_limit_counts(run_config: Callable[..., RunConfig]) -> None:
    """The hospital's own is in minutes, the run's in seconds."""
    assert limit_of(PolicyConfig(max_minutes=2), run_config("round.deadline=300")) == 120
    assert limit_of(PolicyConfig(max_minutes=2), run_config("round.deadline=30")) == 30
    assert "timeout" in CODES


def test_late() -> None:
    """A refusal, with words for the site's log alone."""
    release = Event()
    try:
        with pytest.raises(DeclinedError, match=r"policy\.max_minutes") as refused:
            within(0.05, lambda: Reply(site="a") if release.wait() else Reply(site="b"))
        assert refused.value.code == "timeout"
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0, "should the process not end, the kernel ends it"
    finally:
        release.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
