"""A private federation in which one hospital's budget ends before the run does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gliofed.client.round.privacy import plan_round
from gliofed.shared.accounting import default_delta, rdp_epsilon
from gliofed.shared.messages import CODES
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import FailedError, simulate

PATIENTS = 3
WORDS = (
    "sites=2",
    "privacy=dp_sgd",
    f"data.patients={PATIENTS}",
    "data.validation=0",
    "privacy.patches=1",
    "train.steps=1",
    "policy.counts=always",  # all follows from an exact number
)


def epsilons(settings: dict[str, Any]) -> tuple[float, float]:
    """Of each patient after one round and after two."""
    run, _ = parse_settings(settings)
    delta = default_delta(PATIENTS)
    plan = plan_round(run, 1, PATIENTS, delta)
    one, two = (rdp_epsilon([(plan.sigma, plan.rate, rounds * plan.steps)], delta) for rounds in (1, 2))
    return one, two


def test_a_spent_budget_stops_one_site_and_not_the_run(values: Callable[..., dict[str, Any]], out: Path) -> None:
    """Its ceiling lies between one round and two; the others finish, and the history says why it is not there."""
    words = [*WORDS, f"out={out}"]
    one, two = epsilons(values(*words))
    ceiling = (one + two) / 2
    assert one < ceiling < two <= 8
    settings = values(*words, f"policies={{site-2:{{max_epsilon:{ceiling}}}}}")
    assert simulate(settings).status == "incomplete"
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    first, second = (event["sites"] for event in events if event["event"] == "round")
    assert [first[site]["status"] for site in ("site-1", "site-2")] == ["counted", "counted"]
    assert second["site-1"]["status"] == "counted"
    assert (second["site-2"]["status"], CODES["budget"] in second["site-2"]["reason"]) == ("declined", True)
    assert events[-1] == {"event": "end", "status": "incomplete"}
    told = [line["epsilon"] for line in (first["site-1"], first["site-2"], second["site-1"])]
    assert all(0 <= epsilon - exact < 0.1 for epsilon, exact in zip(told, (one, one, two), strict=True))


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_run_whose_sites_have_all_spent_their_budget_ends_with_what_was_trained(
    values: Callable[..., dict[str, Any]], out: Path, capsys: pytest.CaptureFixture[str], rounds: int
) -> None:
    """Ceilings that hold `rounds` of two rounds; with none there is no model, and somebody must raise them."""
    words = [*WORDS, f"out={out}"]
    one, two = epsilons(values(*words))
    ceiling = {0: one / 2, 1: (one + two) / 2}[rounds]
    ceilings = ",".join(f"site-{number}:{{max_epsilon:{ceiling}}}" for number in (1, 2))
    outcome = simulate(values(*words, f"policies={{{ceilings}}}"))
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", *["round"] * rounds, "round_failed", "end"]
    end, shown = events[-1], capsys.readouterr().out
    few = f"round {rounds + 1}: 0 updates counted, fewer than round.quorum=1"
    assert end["reason"].startswith(f"{few}: the privacy budget is spent at 2 of 2 sites; ")
    assert f"{end['status']}: {end['reason']}" in shown
    if rounds:
        assert outcome.status == "incomplete" and end["reason"].endswith("the model is that of round 1")
        assert json.loads((out / "model" / "model.json").read_text())["round"] == 1
        before = (out / "history.jsonl").read_bytes()
        assert simulate(values(f"resume={out}")).status == "incomplete"
        assert (out / "history.jsonl").read_bytes() == before and end["reason"] in capsys.readouterr().out
    else:
        assert outcome.status == "failed" and end["reason"].endswith("nothing was trained")
        assert not (out / "model").exists()


def test_noise_at_the_server_is_charged_and_ends_with_the_budget(
    values: Callable[..., dict[str, Any]], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies after a charge has spent it: the run ends a round earlier, and its model is kept."""
    words = ["sites=2", "rounds=2", "privacy=central", "train.steps=1", "round.evaluate_every=0", f"out={out}"]

    def die(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("gliofed.server.round.rounds.save_state", die)
        with pytest.raises(FailedError):
            simulate(values(*words))
    outcome = simulate(values(f"resume={out}"))
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [event["of_round"] for event in events if event["event"] == "charge"] == [1, 1]
    (done,) = (event for event in events if event["event"] == "round")
    assert done["epsilon"] == pytest.approx(8, rel=0.01) and done["epsilon"] <= 8
    assert outcome.status == "incomplete" and "privacy.epsilon=8 is spent" in events[-1]["reason"]
    assert json.loads((out / "model" / "model.json").read_text())["round"] == 1


def test_training_that_diverges_is_named_though_its_noise_counts(
    values: Callable[..., dict[str, Any]], out: Path
) -> None:
    """An update that is not finite counts as zero, and what is sent is noise: nothing else would tell."""
    words = ["sites=1", "rounds=1", "privacy=local_update", "train.lr=1e30", "round.evaluate_every=0", f"out={out}"]
    assert simulate(values(*words)).status == "done"
    (done,) = (
        json.loads(line) for line in (out / "history.jsonl").read_text().splitlines() if '"round":1,"sec' in line
    )
    line = done["sites"]["site-1"]
    assert (line["status"], line["train"]) == ("counted", {"loss": None})
    assert line["reason"] == "its training loss is not finite: lower train.lr"


def test_test_mode_repeats_itself_and_says_that_it_is_not_private(
    values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Without it noise comes from the operating system, and no two runs are alike."""
    words = ["sites=1", "rounds=1", "privacy=dp_sgd", "train.steps=1", f"data.root={tmp_path / 'data'}"]

    def weights(name: str, *more: str) -> bytes:
        simulate(values(*words, f"out={tmp_path / name}", *more))
        return (tmp_path / name / "model" / "model.safetensors").read_bytes()

    assert weights("a", "privacy.test_seed=1") == weights("b", "privacy.test_seed=1") != weights("c")
    first = [json.loads((tmp_path / name / "history.jsonl").read_text().splitlines()[0]) for name in ("a", "c")]
    assert [event["private"] for event in first] == [False, True]
