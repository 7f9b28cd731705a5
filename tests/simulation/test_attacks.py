"""Attacks on finished runs: what they read of a run, what they refuse, and runs of which the answer is known."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from small_run import as_given

from gliofed.client.round.policy import counts_leave
from gliofed.shared.data.samples import whole
from gliofed.shared.parse import ConfigError
from gliofed.shared.tasks import TASKS, reading_of
from gliofed.simulation.attacks import ATTACKS
from gliofed.simulation.attacks.canaries import audit, canaries, whole_plan
from gliofed.simulation.attacks.command import attack
from gliofed.simulation.attacks.membership import losses, membership
from gliofed.simulation.attacks.report import rows_table
from gliofed.simulation.attacks.settings import AttackConfig
from gliofed.simulation.attacks.shadows import train_shadows
from gliofed.simulation.attacks.target import open_target
from gliofed.simulation.cli import main
from gliofed.simulation.simulate import simulate

HERE = AttackConfig(device="cpu")
PATIENTS = ("data.patients=6", "data.validation=0.4", "sites=2", "rounds=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is over; tests leave it as it is."""
    return simulated(tmp_path_factory.mktemp("finished") / "run")


def simulated(out: Path, *words: str) -> Path:
    from small_run import composed

    assert simulate(composed(*PATIENTS, *words, "device=cpu", f"out={out}")).status == "done"
    return out


def attacked(name: str, run: Any, *words: str) -> dict[str, Any]:
    """What the JSON says after the command's own function ran."""
    out = attack(as_given(f"attack={name}", f"run={run}", "device=cpu", *words), words)
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


def test_a_patient_s_loss_is_that_of_evaluation(finished: Path) -> None:
    """It leaves out only distances, which take most of the time."""
    target = open_target(finished, HERE)
    patients, model = [patient for patient, _ in target.patients], target.model()
    device, reading = torch.device("cpu"), reading_of(target.run)
    expected = [
        TASKS[target.run.task].measure(model, whole(patient, target.run.data, reading), target.run.data, device)["loss"]
        for patient in patients
    ]
    assert losses(target, device) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_each_patient_is_in_half_of_the_shadow_models(finished: Path, tmp_path: Path) -> None:
    """Who validated in the run as well; the folder they were trained in is gone, and no two models are alike."""
    target = open_target(finished, HERE)
    shadows = list(train_shadows(target, AttackConfig(shadows=4, device="cpu"), tmp_path))
    inside = np.array([shadow.inside for shadow in shadows])
    assert inside.shape == (4, 12)
    assert (inside.sum(axis=0) == 2).all()
    assert {False, True} == {inside for _, inside in target.patients}
    assert len({shadow.model.weights for shadow in shadows} | {target.weights}) == 5
    assert list(tmp_path.iterdir()) == []


def test_only_sites_whose_updates_counted_have_members(finished: Path, tmp_path: Path) -> None:
    """The model has seen nothing of a site that was refused."""
    run = shutil.copytree(finished, tmp_path / "run")
    history = run / "history.jsonl"
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    for event in lines:
        if event["event"] == "round":
            event["sites"]["site-2"]["status"] = "refused"
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [site.name for site in open_target(run, HERE).sites] == ["site-1"]


@pytest.mark.slow
def test_the_plan_of_the_audit_is_what_the_ledger_was_charged(tmp_path: Path) -> None:
    """The site's noisy number of patients is paid from the same budget, so the steps have a little more noise."""
    out = simulated(tmp_path / "run", "sites=1", "privacy=dp_sgd", "privacy.patches=1", "train.steps=1", "rounds=2")
    target = open_target(out, HERE)
    assert not counts_leave(target.sites[0].policy, target.run)
    ledger = (out / "sites" / "site-1" / "ledger" / "ledger.jsonl").read_text().splitlines()
    charges = [json.loads(line).get("charge") for line in ledger]  # other lines are of the run's budget
    trained = [charge for charge in charges if charge and charge["what"] == "train"]
    run, plan, _ = whole_plan(target)
    assert {(charge["sigma"], charge["rate"]) for charge in trained} == {(plan.sigma, plan.rate)}
    assert sum(charge["steps"] for charge in trained) == plan.steps
    assert run.privacy.clip == target.run.privacy.clip
    [row] = attacked("canaries", out, "attacks.canaries=100")["rows"]
    assert row["proven_epsilon"] < row["claimed_at_test_delta"]
    assert row["claimed_epsilon"] <= target.run.privacy.epsilon < row["claimed_at_test_delta"]  # at a smaller delta


def test_without_privacy_canaries_are_seen(finished: Path) -> None:
    """Nothing is clipped and there is no noise: all but those never drawn stand out, and a guess is never wrong."""
    run, plan, _ = whole_plan(open_target(finished, HERE))
    found = audit(run, replace(plan, steps=3 * plan.steps), 100)
    assert found.scores[~found.inside].max() == 0
    assert found.scores.max() >= 1
    assert found.right == found.guesses


def test_several_runs_are_shown_together(finished: Path, tmp_path: Path) -> None:
    """With the folder's name where both were protected alike."""
    other = shutil.copytree(finished, tmp_path / "other")
    found = attacked("membership", f"[{finished},{other}]", "attacks.shadows=0", f"out={tmp_path / 'out'}")
    assert [row["run"] for row in found["rows"]] == ["none (run)", "none (other)"]
    assert {row["members"] + row["non_members"] for row in found["rows"]} == {12}


@pytest.mark.parametrize(
    "words, told",
    [
        (["run=RUN"], ["attack=", *ATTACKS]),
        (["attack=canaries", "run=RUN", "rounds=3"], ["rounds=3"]),
        (["attack=canaries", "resume=RUN"], ["attack=canaries", "nothing may be given beside it"]),
    ],
    ids=lambda part: " ".join(part),
)
def test_the_command_says_wrong_use_in_one_sentence(
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gliofed-simulate", *(word.replace("RUN", str(finished)) for word in words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in sentence for word in told)


def test_what_cannot_be_attacked_is_told(finished: Path, tmp_path: Path) -> None:
    """The folder of results is not made before."""
    good = as_given("attack=canaries", f"run={finished}", "device=cpu", f"out={tmp_path / 'out'}")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"attack": "magic"}, "attack=magic: unknown; known are membership"),
        ({"run": None}, "needs run=DIR"),
        ({"run": str(tmp_path)}, "no run.json"),
        ({"run": []}, "names no run"),
        ({"run": [str(finished), str(finished)]}, "names one twice"),
        ({"attacks": {"shadows": 3}}, "attacks.shadows=3: must be even"),
        ({"attacks": {"canaries": 5}}, "attacks.canaries=5"),
        ({"attacks": "no"}, "must be a group"),
        ({"device": "cuda:99"}, "cuda:99"),
    ]
    for values, told in wrong:
        with pytest.raises(ConfigError, match=told):
            attack({**good, **values}, [])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "gone, told",
    [
        ("model", "not finished"),
        ("data", "is gone"),
        ("history.jsonl", "no round"),
    ],
)
def test_a_run_that_is_not_whole_is_refused(finished: Path, tmp_path: Path, gone: str, told: str) -> None:
    """Above all its data are never written anew: they might be others."""
    run = shutil.copytree(finished, tmp_path / "run")
    (run / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=told):
        open_target(run, HERE)
    assert not (run / "data").exists() or gone != "data"


@pytest.mark.parametrize("broken", ["run.json", "model/model.safetensors"])
def test_a_damaged_run_is_refused(finished: Path, tmp_path: Path, broken: str) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / broken).write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        open_target(run, HERE)


def test_a_run_without_non_members_is_refused(finished: Path, tmp_path: Path) -> None:
    """There is nobody to compare with."""
    target = open_target(finished, HERE)
    trained = [replace(cohort, validation=[]) for cohort in target.cohorts]
    with pytest.raises(ConfigError, match="training and 0 validation patients"):
        membership([replace(target, cohorts=trained)], AttackConfig(), tmp_path)


def test_a_mechanism_for_whole_sites_is_not_audited_by_patients(finished: Path, tmp_path: Path) -> None:
    """Its noise is for a site; canaries are patients."""
    target = open_target(finished, HERE)
    run = replace(target.run, privacy=replace(target.run.privacy, mechanism="central"))
    with pytest.raises(ConfigError, match="privacy=central"):
        canaries([replace(target, run=run)], AttackConfig(), tmp_path)


@pytest.mark.slow
def test_a_model_that_has_learned_by_heart_is_told_and_a_private_one_is_not(tmp_path: Path) -> None:
    """Many steps on a dozen patients; and the same patients under so small an epsilon that hardly anything is learned.

    That the second interval holds one half is chance in one of twenty cases; its noise is fixed, so it is not here.
    """
    words = ["sites=1", "rounds=1", "data.patients=24", "data.validation=0.5", "round.evaluate_every=0"]
    private = ["privacy=dp_sgd", "privacy.epsilon=0.5", "privacy.test_seed=1", "privacy.patches=1", "train.steps=20"]
    runs = [simulated(tmp_path / "open", *words, "train.steps=200"), simulated(tmp_path / "private", *words, *private)]
    found = attacked("membership", f"[{runs[0]},{runs[1]}]", "attacks.shadows=0")
    plain, noisy = found["rows"]
    assert plain["auc"] > 0.7
    assert plain["auc_low"] > 0.5
    assert noisy["auc_low"] < 0.5 < noisy["auc_high"]


def test_the_name_of_a_run_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """A label has the folder's name in it, where two runs are alike."""
    Console(width=80).print(rows_table("attack=membership", [{"run": "none ([red]x)", "auc": 0.5}]))
    assert "none ([red]x)" in capsys.readouterr().out
