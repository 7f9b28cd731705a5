"""A hospital's own page: of its log, its cohort and its ledger, with nobody's name on it."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from asked_site import ask
from small_run import composed

from gliofed.client.cli import main
from gliofed.client.link.site_report import SECTIONS, make_page, read_own, summary
from gliofed.client.round.ledger import Charge, hold
from gliofed.client.round.withdraw import withdraw
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import CODES
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.mock import MockConfig, write_mock
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

WORDS = ("data.validation=0.5", "sites=1")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_mock(MockConfig(patients=12, size=(8, 8, 8), radius_min=1, radius_max=2), folder, 1)
    return folder


def site_in(scans: Path, folder: Path, **policy: object) -> SiteConfig:
    accepts = PolicyConfig(**policy)  # type: ignore[arg-type]
    return SiteConfig(name="a", root=str(scans), labels="mock", work=str(folder / "work"), policy=accepts, device="cpu")


@pytest.fixture(scope="module")
def run() -> RunConfig:
    return parse_settings(composed(*WORDS))[0]


@pytest.fixture(scope="module")
def begun(scans: Path, tmp_path_factory: pytest.TempPathFactory, run: RunConfig) -> SiteConfig:
    """One that trained and measured two rounds, and declined a third."""
    folder = tmp_path_factory.mktemp("begun")
    made = site_in(scans, folder, metrics="always", max_epsilon=None)
    for round in (1, 2):
        assert ask(made, run, "train", round).status == ask(made, run, "evaluate", round).status == "ok"
    assert ask(site_in(scans, folder, min_patients=90), run, "train", 3).code == "too_few_patients"
    return made


@pytest.fixture
def site(begun: SiteConfig, tmp_path: Path) -> SiteConfig:
    """A copy that a test may change."""
    return replace(begun, work=str(shutil.copytree(begun.work, tmp_path / "work")))


def test_it_tells_what_the_site_did_and_what_left(site: SiteConfig) -> None:
    own = read_own(site)
    said = summary(own)
    assert re.fullmatch(r"Since [\d-]{10} the site has trained in 2 rounds of 1 run\.", said[0])
    sent = sum(record["bytes"] for event in own.receipts for record in event["records"])
    assert said[1].startswith(f"5 replies left it, {sent / 1e6:.1f} MB")
    why = CODES["too_few_patients"]
    assert said[2] == f"It did not do 1 request; the most common reason, 1 of 1: {why}."
    page = make_page(own)
    assert [id for id in SECTIONS if f'id="{id}"' not in page] == []
    assert why in page and "patients frozen" in page and "default-src 'none'" in page


def test_its_metrics_are_those_that_it_told(site: SiteConfig, run: RunConfig) -> None:
    """A hospital that withheld them has none on its page either."""
    told = [event for event in read_own(site).receipts if event["kind"] == "evaluate"]
    value = ask(site, run, "evaluate", 2).metrics["dice"]
    assert told[-1]["told"]["dice"] == value
    assert f"{round(value, 4)}" in make_page(read_own(site))


def test_a_test_is_no_point_of_a_curve(tmp_path: Path) -> None:
    """The last round's model is measured twice; the figure of the test patients stood for the validation's."""
    words = ("sites=1", "data.patients=12", "data.validation=0.3", "data.test=0.4", f"out={tmp_path / 'run'}")
    simulate(composed(*words))
    events = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    first, last = (event["sites"]["site-1"]["evaluate"]["dice"] for event in events if event["event"] == "round")
    [test] = [event["models"]["last"]["sites"]["site-1"] for event in events if event["event"] == "test"]
    assert round(test["evaluate"]["dice"], 4) != round(last, 4)
    work = tmp_path / "run" / "sites" / "site-1"
    page = make_page(read_own(SiteConfig(name="", root="", labels="", work=str(work))))
    assert f"[{round(first, 4)}, {round(last, 4)}]" in page
    assert "Test patients, measured once" in page
    assert f"<td>dice</td><td>{test['evaluate']['dice']:.3f}</td><td>{test['evaluated']}</td>" in page


def test_what_an_earlier_run_left_out_is_not_of_the_last(site: SiteConfig, run: RunConfig) -> None:
    """Files that were mended since stood on the page for good."""
    own = read_own(site)
    own.receipts[0]["left_out"] = {"truncated": 2}
    assert "could not use" not in " ".join(summary(own)), "a later reply of the same run left none out"
    own.receipts[2]["left_out"] = {"truncated": 2}
    assert "The last run could not use 2 cases of the cohort" in " ".join(summary(own))
    ask(site, run, "query", run_id="s")
    assert "could not use" not in " ".join(summary(replace(own, receipts=[*own.receipts, read_own(site).receipts[-1]])))


def test_a_test_that_was_asked_for_twice_is_one(site: SiteConfig) -> None:
    """The aggregator asks again where it was stopped meanwhile."""
    own = read_own(site)
    own.receipts[1]["part"] = own.receipts[3]["part"] = "test"
    own.receipts[3]["round"] = own.receipts[1]["round"]
    assert make_page(own).count("<td>dice</td>") == 1


def test_nobody_is_named(site: SiteConfig, scans: Path) -> None:
    page = make_page(read_own(site))
    patients = {path.name for path in scans.iterdir() if path.is_dir()}
    assert len(patients) >= 12 and not [name for name in patients if name in page]


def test_epsilon_is_the_ledgers(site: SiteConfig) -> None:
    with hold(site.folder.ledger, 1e-3) as ledger:
        for round in (1, 2):
            ledger.charge(Charge(what="train", run_id="r", round=round, sigma=2.0, rate=0.5, steps=3, patients=9), None)
        spent = ledger.epsilon()
    own = read_own(site)
    assert summary(own)[-1] == f"Each patient has spent epsilon {spent:.2f}; the site's ceiling: none."
    assert f"{spent:.3f}" in make_page(own) and "charge by charge" in make_page(own)
    assert ">charge</text>" in make_page(own), "a charge is no round"


def test_test_mode_is_said_loudly(site: SiteConfig) -> None:
    with hold(site.folder.ledger, 1e-3) as ledger:
        charge = Charge(what="train", run_id="r", round=1, sigma=2.0, rate=0.5, steps=3, patients=9, private=False)
        ledger.charge(charge, None)
    page = make_page(read_own(site))
    assert "Test mode: a run was trained" in page and "none holds" in page


def test_a_withdrawal_removes_the_page(site: SiteConfig, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may show slices of whoever withdraws."""
    report(monkeypatch, site.work)
    assert site.folder.page.stat().st_mode & 0o077 == 0
    who = next(path.name for path in scans.iterdir() if path.is_dir()).rpartition("-")[0]
    done = withdraw(site, who)
    assert site.folder.page in done.reports and not site.folder.page.exists()


def report(monkeypatch: pytest.MonkeyPatch, *words: object) -> object:
    monkeypatch.setattr(sys, "argv", ["gliofed-client", "report", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_slices_of_a_model_are_of_this_site(
    scans: Path, tmp_path: Path, site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(composed(*WORDS, "rounds=1", f"out={tmp_path / 'run'}"))
    policy = "policy: {metrics: always}\n"
    (tmp_path / "site.yaml").write_text(f"name: a\nroot: {scans}\nlabels: mock\nwork: work\ndevice: cpu\n{policy}")
    assert report(monkeypatch, tmp_path, "--model", tmp_path / "run", "--out", tmp_path / "own.html") == 0
    page = (tmp_path / "own.html").read_text()
    assert page.count("data:image/png") == 3 and "These are PATIENTS of this hospital" in page
    assert "validation patients, at a: dice" in page


def test_slices_freeze_no_cohort(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever only looks must not decide who is in every later run."""
    (tmp_path / "site.yaml").write_text(f"name: a\nroot: {scans}\nlabels: mock\nwork: work\ndevice: cpu\n")
    assert report(monkeypatch, tmp_path, "--model", tmp_path / "run") == 2
    assert "has no patients to show yet; freeze its cohort" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run"], "is a run's folder, which has report.html; give a site's work folder"),
        (["nowhere"], "no hospital's folder and no work folder"),
        (["work", "--model", "m"], "--model m: goes with the hospital's folder"),
        (["work", "--out", "."], "is a folder; give a file"),
    ],
)
def test_wrong_use_is_a_sentence(
    site: SiteConfig,
    tmp_path: Path,
    words: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "audit").mkdir(parents=True)
    (tmp_path / "run" / "audit" / "audit.jsonl").write_bytes((site.folder.root / "audit" / "audit.jsonl").read_bytes())
    (tmp_path / "run" / "history.jsonl").write_text("")
    assert report(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_a_log_of_an_older_version_has_no_values(site: SiteConfig) -> None:
    own = read_own(site)
    for event in own.receipts:
        del event["told"]
    assert "No metric of this site's patients is in its log" in make_page(own)
    assert json.dumps(own.receipts)
