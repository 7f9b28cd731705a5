"""A patient withdraws consent: out of everything in the work folder, for good, whatever is killed meanwhile."""

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

import client.round.work
from client.cli import main
from client.doctor.consent import add_withdrawn, hold_patients, read_consent
from client.doctor.manifest import manifest_path, read_manifest
from client.round.withdraw import withdraw
from shared.audit import audit_file, read_audit
from shared.chain import lock
from shared.config import RunConfig
from shared.files import write_json
from shared.messages import Request
from shared.parse import ConfigError
from shared.site_config import SiteConfig
from simulation.mock import MockConfig, write_mock

WHO = "Mock-01002"
OTHERS = {"Mock-01000", "Mock-01001"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of three patients, and the work folder of a site that trained one round with all of them."""
    folder = tmp_path_factory.mktemp("begun")
    write_mock(MockConfig(patients=3, size=(16, 16, 16), radius_max=6), folder / "scans", 1)
    site = SiteConfig(name="a", root=str(folder / "scans"), labels="mock", work=str(folder / "work"), device="cpu")
    assert ask(site, config(), "train").patients == 3
    return folder


def config() -> RunConfig:
    from small_run import composed

    from simulation.settings import parse_settings

    return parse_settings(composed("data.validation=0"))[0]


@pytest.fixture
def site(begun: Path, tmp_path: Path) -> SiteConfig:
    """The site, with traces of the patient that killed programs and people left."""
    shutil.copytree(begun / "work", tmp_path / "work")
    work = tmp_path / "work"
    assert {entry.case.patient for entry in frozen(work)} == {WHO, *OTHERS}
    with (work / "site.log").open("a") as log:
        log.write(f"2027-01-01 WARNING left out (truncated): /scans/{WHO}-000/{WHO}-000-t1n.nii.gz: and {WHO}9\n")
    shutil.copy(work / "site.log", work / "site.old.log")
    write_json(work / "cache" / ".half-x" / "entry.json", {"of": {"visits": [{"patient": WHO}]}})
    (work / "cohort" / ".manifest.json.0123.tmp").write_text(WHO)
    (work / "outbox" / ".r.safetensors.0123.tmp").write_bytes(b"half")
    (work / "outbox" / "r-0009-0123.safetensors").write_bytes(b"its JSON was not written")
    write_json(work / "reports" / "check.json", {"cases": [{"patient": WHO}]})
    (work / "reports" / "check.html").write_text(f"<h3>{WHO}</h3>")
    return SiteConfig(name="a", root=str(begun / "scans"), labels="mock", work=str(work), device="cpu")


def frozen(work: Path) -> list[Any]:
    manifest = read_manifest(work)
    assert manifest is not None
    return manifest.entries


def traces(work: Path, name: str = WHO) -> list[str]:
    """Files of the work folder that have the name in them, or in their own; P9 is another's."""
    return [
        str(path.relative_to(work))
        for path in work.rglob("*")
        if name in str(path.relative_to(work))
        or (path.is_file() and name.encode() in path.read_bytes().replace(name.encode() + b"9", b""))
    ]


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    return status(monkeypatch, main, "withdraw", *words)


def test_files_of_others_do_not_keep_a_patient_in(site: SiteConfig) -> None:
    """A plain file in the cache, a deep JSON of the name of a report, a name that has this one in it."""
    work = Path(site.work)
    (work / "cache" / "notes").write_text("mine")
    (work / "deep").mkdir()
    (work / "deep" / "check.json").write_text("[" * 100_000)
    with (work / "site.log").open("a") as log:
        log.write(f"{WHO}é is another\n")
    withdraw(site, WHO)
    assert (work / "site.log").read_text().endswith(f"{WHO}é is another\n")
    assert WHO not in (work / "site.log").read_text().replace(f"{WHO}é", "").replace(f"{WHO}9", "")


def test_a_work_folder_that_is_held_is_said(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("client.doctor.consent.WAIT", 0.1)
    with lock(Path(site.work), 1.0):
        assert command(monkeypatch, WHO, Path(site.work)) == 2
    assert f"then withdraw {WHO} again" in capsys.readouterr().err


def test_nothing_is_left_but_the_line_of_the_log(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Path(site.work)
    assert len(traces(work)) > 6
    before = {entry.case.patient: entry for entry in frozen(work)}
    caches = {path: path.stat().st_mtime_ns for path in (work / "cache").glob("[!.]*/*")}
    replies = set((work / "outbox").iterdir())
    stored = ask(site, config(), "train")
    opened = Path.open

    def refuse(path: Path, *rest: Any, **words: Any) -> Any:
        assert ".nii" not in path.name  # nobody's scan is read for it
        return opened(path, *rest, **words)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        assert command(monkeypatch, WHO, work) == 0
    said = capsys.readouterr().out
    assert f"{WHO} is withdrawn: 1 entries of the cache and 1 stored replies removed" in said
    assert f"trained with {WHO}: run r; tell its aggregator" in said and "check.html" in said
    assert traces(work) == [] and not replies & set((work / "outbox").iterdir())
    assert f"{WHO}9" in (work / "site.log").read_text()
    assert {entry.case.patient: entry for entry in frozen(work)} == {name: before[name] for name in OTHERS}
    left = {path: path.stat().st_mtime_ns for path in (work / "cache").glob("*/*")}
    assert left.items() < caches.items() and len({path.parent for path in left}) == 2
    (event,) = (event for event in events_of(site) if event["event"] == "withdrawn")
    assert (event["runs"], event["unknown"], event["replies"], event["cache"]) == (["r"], [], 1, 1)
    assert event["patient"] == read_consent(work).pseudonym(WHO)
    # The same request again has another answer, of those who stay; that one is stored.
    anew, again = ask(site, config(), "train"), ask(site, config(), "train")
    assert (stored.patients, anew.patients) == (3, 2)
    assert anew.update != stored.update and again.update == anew.update
    assert traces(work) == []
    read_audit(audit_file(work))


def test_the_patient_stays_out_of_a_cohort_that_is_frozen_anew(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, WHO, site.work) == 0
    words = (f"data.root={site.root}", "data.labels=mock", f"work={site.work}", f"out={tmp_path / 'o'}", "workers=1")
    data = ("data.modalities=[t1]", "data.regions=[object]", "data.spacing=null", "data.validation=0")
    assert status(monkeypatch, main, "check", *words, *data) == 0
    assert f"not read, for consent was withdrawn: {WHO}\n" in capsys.readouterr().out
    assert {entry.case.patient for entry in frozen(Path(site.work))} == OTHERS
    assert traces(Path(site.work)) == [] == traces(tmp_path / "o")
    assert ask(site, config(), "train").patients == 2


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


def test_killed_anywhere_it_is_completed_by_doing_it_again(site: SiteConfig, tmp_path: Path) -> None:
    """And meanwhile no request begins with the patient, or is answered with what was trained on them."""
    number, counted = 0, set[int]()
    while True:
        work = tmp_path / f"killed-{number}"
        shutil.copytree(site.work, work)
        other = replace(site, work=str(work))
        killed = killed_at(number, other)
        if not read_consent(work).given(WHO) and number % 10 == 0:  # each tenth, for training takes a while
            counted.add(ask(other, config(), "train").patients)
        if killed:
            withdraw(other, WHO)
        assert traces(work) == []
        events = [event for event in events_of(other) if event["event"] == "withdrawn"]
        assert [event["runs"] for event in events] == [["r"]]
        shutil.rmtree(work)
        if not killed:
            break
        number += 1
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
    assert WHO in manifest_path(work).read_text()
    answering()
    waiting.join()
    assert traces(work) == []


def test_an_answer_that_was_begun_with_the_patient_stays(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    train = client.round.work.train

    def slow(site: SiteConfig, request: Request) -> Any:
        reply = train(site, request)
        add_withdrawn(Path(site.work), WHO)
        return reply

    monkeypatch.setattr(client.round.work, "train", slow)
    reply = ask(site, config(), "train", round=2)
    assert (reply.status, reply.code, reply.patients, reply.update) == ("declined", "changed_file", 0, b"")
    monkeypatch.undo()
    assert ask(site, config(), "train", round=2).patients == 2


def test_a_name_that_is_mistyped(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "Mock-1002\x1b[2J", site.work) == 2
    said = capsys.readouterr().err
    assert "has nothing of such a patient" in said and "named like Mock-01000" in said and "\x1b" not in said
    assert command(monkeypatch, WHO, tmp_path) == 2
    assert "no hospital's folder and no work folder" in capsys.readouterr().err
    assert not [event for event in events_of(site) if event["event"] == "withdrawn"]
    with pytest.raises(ConfigError, match="nothing of such a patient; look"):
        withdraw(replace(site, work=str(tmp_path / "new")), WHO)


def test_a_patient_of_an_earlier_cohort(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """site.yaml does not name them any more, and the cohort was frozen anew: the cache still has their scans."""
    work = Path(site.work)
    shutil.rmtree(work / "cohort")
    shutil.rmtree(work / "trained")
    assert ask(replace(site, patients=tuple(OTHERS)), config(), "query").patients == 2
    assert WHO not in {entry.case.patient for entry in frozen(work)}
    assert command(monkeypatch, WHO, work) == 0 and traces(work) == []


def test_a_hospitals_folder(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged audit log is said, and the patient is out already."""
    (tmp_path / "site.yaml").write_text(f"name: a\nroot: {site.root}\nlabels: mock\n")
    head = audit_file(Path(site.work)).parent / "head.json"
    kept = head.read_text()
    head.write_text("{}")
    assert command(monkeypatch, WHO, tmp_path) == 2
    assert f"{head}: cannot be read" in capsys.readouterr().err and not read_consent(Path(site.work)).given(WHO)
    head.write_text(kept)
    assert command(monkeypatch, WHO, tmp_path) == 0 == command(monkeypatch, WHO, tmp_path)
    assert traces(Path(site.work)) == []


def test_what_a_person_put_into_the_work_folder_is_named_and_kept(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = Path(site.work) / "masks" / f"{WHO}-000-seg.nii.gz"
    mask.parent.mkdir()
    mask.write_bytes(b"mask")
    assert command(monkeypatch, WHO, site.work) == 1
    assert f"still names {WHO}: {mask}; remove it" in capsys.readouterr().out
    mask.unlink()
    assert command(monkeypatch, WHO, site.work) == 0


def test_runs_and_replies_of_an_earlier_version_may_have_anybody(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They did not note whom they trained with."""
    work = Path(site.work)
    shutil.rmtree(work / "trained")
    (head,) = (work / "outbox").glob("*.json")
    head.write_text(head.read_text().replace('"trained_on"', '"no_field"'))
    text = head.read_text()
    head.write_text(text[: text.index(', "no_field"')] + "}")
    assert ask(site, config(), "train").patients == 3  # stored as it was
    assert command(monkeypatch, WHO, work) == 0
    assert f"may have trained with {WHO}: run r, of an earlier version" in capsys.readouterr().out
    assert not list((work / "outbox").iterdir())


def test_a_list_that_cannot_be_read_stops_the_site(site: SiteConfig) -> None:
    """Else who withdrew would be trained on again."""
    assert withdraw(site, WHO).runs == ["r"]
    path = Path(site.work) / "consent.json"
    for content in ("", "{}", '{"key": "k"}', "[" * 100_000):
        path.write_text(content)
        assert ask(site, config(), "train").code == "data"
        assert f"{path}: cannot be read, so it is not known who withdrew" in (Path(site.work) / "site.log").read_text()
    path.unlink()
    assert ask(site, config(), "train").code == "data" and not path.exists()
    assert f"{path}: is gone, so it is not known who withdrew" in (Path(site.work) / "site.log").read_text()
