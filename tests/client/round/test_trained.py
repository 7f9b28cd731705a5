"""Whom a run trained with can be told later, and is not told by the audit log."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from asked_site import ask, events_of
from private_hospital import PATIENTS, PRIVATE, Hospital

from gliofed.client.doctor.consent import read_consent
from gliofed.client.round.trained import runs_with
from gliofed.shared.config import RunConfig
from gliofed.shared.site_config import PolicyConfig


def test_a_run_is_noted_once(hospital: Hospital, run_config: Callable[..., RunConfig]) -> None:
    site = hospital.site()
    work, config = Path(site.work), run_config("data.validation=0.5", "data.split_seed=1")
    trained = [ask(site, config, "train", round=round, run_id=run).patients for run in "ab" for round in (1, 2)]
    names = {path.name.rpartition("-")[0] for path in hospital.scans.iterdir()}
    of = {name: runs_with(work, read_consent(work).pseudonym(name)) for name in names}
    assert sum(runs == (["a", "b"], ["a", "b"]) for runs in of.values()) == trained[0] < PATIENTS == len(names)
    assert sum(runs == ([], ["a", "b"]) for runs in of.values()) == PATIENTS - trained[0]
    noted = [event for event in events_of(site) if event["event"] == "trained_on"]
    assert [(event["run_id"], event["round"]) for event in noted] == [("a", 1), ("b", 1)]
    content = (work / "trained" / "a.json").read_bytes()
    assert noted[0]["patients_sha256"] == sha256(content).hexdigest()
    assert {*noted[0]} == {"event", "time", "before", "run_id", "round", "patients_sha256", "salt"}  # and no number
    assert not [name for name in names if name.encode() in content]


def test_a_round_that_is_declined_trains_with_nobody(hospital: Hospital, run_config: Callable[..., RunConfig]) -> None:
    strict = replace(hospital.site(), policy=PolicyConfig(min_noise=1e6))
    assert ask(strict, run_config(*PRIVATE), "train").code == "policy"
    small = replace(strict, policy=PolicyConfig(min_patients=99))
    assert ask(small, run_config(), "train", run_id="open").code == "too_few_patients"
    assert runs_with(Path(strict.work), "") == ([], [])
    assert ask(hospital.site(), run_config(*PRIVATE), "train").code == "ok"
    assert runs_with(Path(strict.work), "") == ([], ["r"])


def test_a_damaged_list_is_said(hospital: Hospital, run_config: Callable[..., RunConfig]) -> None:
    site = hospital.site()
    assert ask(site, run_config(), "train", run_id="a").code == "ok"
    (Path(site.work) / "trained" / "a.json").write_text(json.dumps(["x"]))
    assert runs_with(Path(site.work), "x") == ([], [])  # so it may have trained with anybody
    assert ask(site, run_config(), "train", round=2, run_id="a").code == "data"
    assert "a.json: cannot be read" in (Path(site.work) / "site.log").read_text()
    assert ask(site, run_config(), "train", run_id="b").code == "ok"
