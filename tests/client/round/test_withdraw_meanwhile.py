"""Who withdraws while a request is answered or a check runs, and a command that is killed."""

import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked_site import ask, events_of
from small_federation import status
from waiting import until
from withdrawal import OTHERS, WHO, config, frozen, traces

import gliofed.client.app
import gliofed.client.doctor.check_command
import gliofed.client.round.work
from gliofed.client.cli import main
from gliofed.client.doctor.consent import add_withdrawn, hold_patients, read_consent
from gliofed.client.round.judge import Admitted
from gliofed.client.round.withdraw import withdraw
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.work_folder import WorkFolder

CHANGES = ("rename", "replace", "unlink", "rmdir", "fsync")
"""By which files are changed."""


def killed_at(number: int, site: SiteConfig) -> bool:
    """Withdraw in a process that is killed at the change of this number; whether it was."""
    if (child := os.fork()) == 0:
        left = iter(range(number))

        def count(do: Callable[..., Any]) -> Callable[..., Any]:
            def change(*rest: Any, **words: Any) -> Any:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return do(*rest, **words)

            return change

        try:
            for name in CHANGES:
                setattr(os, name, count(getattr(os, name)))
            withdraw(site, WHO)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_killed_anywhere_it_is_completed_by_doing_it_again(site: SiteConfig, tmp_path: Path, step: int) -> None:
    """And meanwhile no request begins with the patient, or is answered with what was trained on them."""
    number, counted = 0, set[int]()
    while True:
        work = tmp_path / f"killed-{number}"
        shutil.copytree(site.work, work)
        other = replace(site, work=str(work))
        killed = killed_at(number, other)
        if not read_consent(work).given(WHO) and number % (10 * step) == 0:  # each tenth, for training takes a while
            counted.add(ask(other, config(), "train").patients)
        if killed:
            withdraw(other, WHO)
        assert traces(work) == []
        events = [event for event in events_of(other) if event["event"] == "withdrawn"]
        assert [event["runs"] for event in events] == [["r"]]
        shutil.rmtree(work)
        if not killed:
            break
        number += step
    assert number > 20 and counted == {2}


@pytest.fixture
def answering(site: SiteConfig) -> Iterator[Callable[[], None]]:
    """A request that is being answered, and how to end it."""
    end, began = threading.Event(), threading.Event()

    def answer() -> None:
        with hold_patients(Path(site.work)):
            began.set()
            end.wait()

    thread = threading.Thread(target=answer)
    thread.start()
    began.wait()
    yield end.set
    end.set()
    thread.join()


def test_while_a_request_is_answered(site: SiteConfig, answering: Callable[[], None]) -> None:
    """It waits for its end, and the next one is without the patient already."""
    work = Path(site.work)
    waiting = threading.Thread(target=withdraw, args=(site, WHO))
    waiting.start()
    until(lambda: not read_consent(work).given(WHO), "withdrawn")
    assert ask(site, config(), "train").patients == 2  # not the stored one, which is still there
    assert WHO in WorkFolder(work).manifest.read_text()
    answering()
    waiting.join()
    assert traces(work) == []


def test_an_answer_that_was_begun_with_the_patient_stays(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    train = gliofed.client.round.work.train

    def slow(admitted: Admitted) -> Any:
        reply = train(admitted)
        add_withdrawn(Path(site.work), WHO)
        return reply

    monkeypatch.setattr(gliofed.client.round.work, "train", slow)
    reply = ask(site, config(), "train", round=2)
    assert (reply.status, reply.code, reply.patients, reply.update) == ("declined", "changed_file", 0, b"")
    monkeypatch.undo()
    assert ask(site, config(), "train", round=2).patients == 2


def test_a_log_has_no_writer_while_it_is_rewritten(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a request wrote into the log that was replaced would be lost: it holds the folder from its first line on."""
    answer = gliofed.client.app._audited

    def watched(*rest: Any) -> Any:
        with (Path(site.work) / "patients.lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return answer(*rest)

    monkeypatch.setattr(gliofed.client.app, "_audited", watched)  # what is done while the log is open
    assert ask(site, config()).patients == 3


def test_while_a_check_runs(site: SiteConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It began with the patient: its report and its cohort end without, whichever is done first."""
    work, examine = Path(site.work), gliofed.client.doctor.check_command.examine
    waiting = threading.Thread(target=withdraw, args=(site, WHO))

    def slow(*rest: Any) -> Any:
        waiting.start()
        until(lambda: not read_consent(work).given(WHO), "withdrawn")
        return examine(*rest)

    monkeypatch.setattr(gliofed.client.doctor.check_command, "examine", slow)
    monkeypatch.chdir(work.parent)  # where its report would go by itself, out of the withdrawal's sight
    words = (f"data.root={site.root}", "data.labels=mock", f"work={work}", "workers=1")
    data = ("data.modalities=[t1]", "data.regions=[object]", "data.spacing=null", "data.validation=0")
    assert status(monkeypatch, main, "check", *words, *data) == 0
    waiting.join()
    assert list(work.glob("checks/*/*")) and not Path("outputs").exists()
    assert traces(work) == [] and {entry.case.patient for entry in frozen(work)} == OTHERS
