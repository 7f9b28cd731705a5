"""A private round at one site: what is charged, and what is refused."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from judged_site import evaluate, prepare, train
from private_hospital import PATIENTS, PRIVATE, Config, Hospital, charges, other_weights, refusal, request_of
from safetensors.torch import load
from torch import Tensor
from torch.testing import assert_close

import gliofed.client.round.privacy
from gliofed.client.round.ledger import read_ledger
from gliofed.shared.accounting import rdp_epsilon
from gliofed.shared.site_config import SiteConfig


def test_another_split_is_declined(hospital: Hospital, run_config: Config) -> None:
    """It would put training patients on the other side, where metrics might be told of them."""
    site = hospital.site(metrics="always")
    prepare(site, request_of(run_config("privacy=dp_sgd", "data.validation=0.4")))
    for work in (train, evaluate):
        code, sentence = refusal(work, site, request_of(run_config("privacy=dp_sgd", "data.validation=0.2")))
        assert code == "ledger" and "data.validation=0.2" in sentence and "data.validation=0.4" in sentence


@pytest.mark.parametrize(("first", "then"), [("null", "0.2"), ("0.2", "null"), ("0.2", "0.3"), ("0", "null")])
def test_another_test_is_declined(hospital: Hospital, run_config: Config, first: str, then: str) -> None:
    """Who trained in the study would be tested, or who was to be tested would train."""
    site = hospital.site(metrics="always")
    prepare(site, request_of(run_config("privacy=dp_sgd", f"data.test={first}")))
    for work in (train, evaluate):
        code, sentence = refusal(work, site, request_of(run_config("privacy=dp_sgd", f"data.test={then}")))
        assert code == "ledger" and ("data.test=" in sentence)


def test_a_run_stays_within_its_own_epsilon(hospital: Hospital, run_config: Config) -> None:
    """Whatever it asks for: here the same last round three times, each with other weights. No ceiling is set."""
    site, config = hospital.site(), run_config(*PRIVATE, "rounds=1", "privacy.epsilon=2")
    first = request_of(config)
    train(site, first)
    code, sentence = refusal(train, site, other_weights(first))
    assert code == "budget" and "privacy.epsilon=2" in sentence
    assert len(charges(site)) == 1


def run_epsilon(site: SiteConfig, delta: float) -> float:
    """Of all that the ledger has, by hand: each charge as a mechanism of its own."""
    spent = [(charge.sigma, charge.rate, charge.steps) for what in ("count", "train") for charge in charges(site, what)]
    return rdp_epsilon(spent, delta)


@pytest.mark.parametrize("larger", ["privacy.epsilon=1000", "privacy.delta=null"])
def test_a_run_keeps_the_least_that_it_ever_asked_for(hospital: Hospital, run_config: Config, larger: str) -> None:
    """A server that asks for more under the same id gets the noise of the least, and no round beyond it."""
    site, least = hospital.site(), (*PRIVATE, "rounds=2", "privacy.epsilon=2", "privacy.delta=1e-9")
    prepare(site, request_of(run_config(*least)))
    for round in (1, 2):
        train(site, request_of(run_config(*least, larger), round))
    assert 1.99 < run_epsilon(site, 1e-9) <= 2.0
    code, sentence = refusal(train, site, other_weights(request_of(run_config(*least, larger), 2)))
    assert code == "budget" and "privacy.epsilon=2" in sentence and "delta=1e-09" in sentence
    assert len(charges(site)) == 2
    ledger = read_ledger(site.folder.ledger)
    assert ledger is not None and ledger.budget("r") == (2.0, 1e-9)


def test_a_run_that_asks_for_less_is_held_to_that(hospital: Hospital, run_config: Config) -> None:
    """What was spent under the larger budget counts; an evaluation is enough to name the least."""
    site = hospital.site(metrics="always")
    train(site, request_of(run_config(*PRIVATE, "rounds=2", "privacy.epsilon=8")))
    evaluate(site, request_of(run_config(*PRIVATE, "rounds=2", "privacy.epsilon=0.5")))
    code, sentence = refusal(train, site, request_of(run_config(*PRIVATE, "rounds=2", "privacy.epsilon=8"), 2))
    assert code == "budget" and "epsilon=0.5" in sentence
    other = replace(request_of(run_config(*PRIVATE, "privacy.epsilon=8")), run_id="other")
    assert train(site, other).status == "ok"  # another run has a budget of its own


@pytest.mark.parametrize("work", [prepare, train, evaluate])
@pytest.mark.parametrize("mechanism", ["none", "central"])
def test_a_private_run_cannot_go_on_without_privacy(
    hospital: Hospital, run_config: Config, work: Callable[..., object], mechanism: str
) -> None:
    site = hospital.site()
    prepare(site, request_of(run_config(*PRIVATE, "privacy.epsilon=3")))
    openly = request_of(run_config(f"privacy={mechanism}", "data.validation=0.4"))
    code, sentence = refusal(work, site, openly)
    assert code == "budget" and "privacy.epsilon=3" in sentence
    assert prepare(site, replace(openly, run_id="other")).status == "ok"
    (site.folder.ledger / "ledger.jsonl").write_text("")
    assert refusal(work, site, replace(openly, run_id="other"))[0] == "ledger"


def test_a_round_that_the_run_has_not_is_declined(hospital: Hospital, run_config: Config) -> None:
    site = hospital.site()
    code, _ = refusal(train, site, request_of(run_config(*PRIVATE, "rounds=2"), 3))
    assert code == "policy" and charges(site) == []


def test_the_same_request_is_charged_once(hospital: Hospital, run_config: Config) -> None:
    """A second look at the same bytes tells nothing more; other weights are another round's worth."""
    site, request = hospital.site(), request_of(run_config(*PRIVATE))
    reply = train(site, request)
    assert reply.status == "ok" and reply.steps == 1
    assert train(site, request) == reply
    assert len(charges(site)) == 1
    assert train(site, other_weights(request)).update != reply.update
    assert len(charges(site)) == 2


def test_a_whole_update_is_clipped_and_gets_noise(hospital: Hospital, run_config: Config) -> None:
    """privacy=local_update trains as ever: the update without privacy is the oracle. Its steps are one charge."""
    words = ("data.validation=0", "train.steps=2")
    plain = load(train(hospital.site("plain"), request_of(run_config(*words))).update)
    config = run_config(*words, "privacy=local_update", "privacy.clip=0.1", "privacy.test_seed=3")
    site = hospital.site(test_mode=True)
    reply = train(site, request_of(config))
    (charge,) = charges(site)
    assert (charge.rate, charge.steps, reply.metrics, reply.steps) == (1.0, 1, {}, 2)
    norm = math.sqrt(sum(tensor.double().square().sum().item() for tensor in plain.values()))
    assert norm > 0.1
    noise = torch.cat([(t.double() - plain[name] * 0.1 / norm).flatten() for name, t in load(reply.update).items()])
    assert noise.std().item() == pytest.approx(2 * 0.1 * charge.sigma, rel=0.02)
    ledger = read_ledger(site.folder.ledger)
    assert ledger is not None and ledger.epsilon() < config.privacy.epsilon


def test_a_whole_update_over_the_ceiling_stays(hospital: Hospital, run_config: Config) -> None:
    site = hospital.site(max_epsilon=1.0, count_noise=100.0)
    code, sentence = refusal(train, site, request_of(run_config("privacy=local_update", "data.validation=0")))
    assert code == "budget" and "policy.max_epsilon=1" in sentence


def test_noise_at_the_server_is_no_privacy_of_the_update(hospital: Hospital, run_config: Config) -> None:
    """A site with a ceiling cannot see that the noise is added."""
    code, sentence = refusal(train, hospital.site(max_epsilon=5.0), request_of(run_config("privacy=central")))
    assert code == "budget" and "central" in sentence


def test_nobody_is_charged_for_an_update_that_there_is_no_room_for(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be stored, and what is trained but not stored is trained, and charged, again."""
    site, request = hospital.site(), request_of(run_config(*PRIVATE))
    asked = []

    def full(descriptor: int, offset: int, size: int) -> None:
        asked.append(size)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        train(site, request)
    assert charges(site) == []
    monkeypatch.undo()
    assert len(train(site, request).update) < asked[0]


def test_a_round_that_broke_off_stays_charged(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what of it had left the process; the next try has noise of its own."""
    site, request, seen = hospital.site(), request_of(run_config(*PRIVATE)), []
    original = gliofed.client.round.privacy.patient_gradient

    def fail(*given: object) -> object:
        seen.append(given)
        if len(seen) == PATIENTS // 2:
            raise InterruptedError
        return original(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(gliofed.client.round.privacy, "patient_gradient", fail)
        with pytest.raises(InterruptedError):
            train(site, request)
    assert len(charges(site)) == 1
    ledger = read_ledger(site.folder.ledger)
    assert ledger is not None
    spent = ledger.epsilon()
    told = train(site, request).epsilon
    assert len(charges(site)) == 2
    assert told is not None and told > spent


def test_all_rounds_spend_what_the_run_asks_for(hospital: Hospital, run_config: Config) -> None:
    """The number of patients is paid from the same budget; the noise is found to a thousandth."""
    config, site = run_config(*PRIVATE, "rounds=2", "privacy.epsilon=3"), hospital.site()
    told = [train(site, request_of(config, round)).epsilon for round in (1, 2)]
    ledger = read_ledger(site.folder.ledger)
    assert ledger is not None
    assert 2.98 < ledger.epsilon() <= 3.0
    assert told[0] is not None and told[0] < 3.0 and told[1] == 3.0


def test_a_ceiling_needs_privacy(hospital: Hospital, run_config: Config) -> None:
    """Before anything is read: the site need not even have data."""
    site = replace(hospital.site(max_epsilon=5.0), root="/nowhere")
    code, sentence = refusal(train, site, request_of(run_config("data.validation=0")))
    assert code == "budget" and "policy.max_epsilon=5" in sentence


def test_a_round_over_the_ceiling_takes_no_step(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gliofed.client.round.privacy, "patient_gradient", None)  # a step would raise
    site = hospital.site(max_epsilon=0.6, count_noise=100.0)
    code, sentence = refusal(train, site, request_of(run_config(*PRIVATE)))
    assert code == "budget" and "train of round 1" in sentence
    assert charges(site) == [] and len(charges(site, "count")) == 1


def test_a_budget_that_the_number_of_patients_spends(hospital: Hospital, run_config: Config) -> None:
    """No noise of the steps can mend it; the site's log says which two settings are at odds."""
    site = hospital.site()
    prepare(site, replace(request_of(run_config(*PRIVATE)), run_id="earlier"))
    code, sentence = refusal(train, site, request_of(run_config(*PRIVATE, "privacy.epsilon=0.2")))
    assert code == "budget" and "privacy.epsilon=0.2" in sentence and "policy.count_noise=10" in sentence


def test_the_number_of_patients_is_charged_within_the_runs_budget(hospital: Hospital, run_config: Config) -> None:
    """It is drawn when a site is asked to prepare. No ceiling is set: the run's own epsilon refuses it."""
    site, config = hospital.site(count_noise=0.1), run_config(*PRIVATE, "privacy.epsilon=1")
    code, sentence = refusal(prepare, site, request_of(config))
    assert code == "budget" and "privacy.epsilon=1" in sentence and "policy.count_noise than 0.1" in sentence
    assert charges(site, "count") == []
    assert prepare(hospital.site("usual"), request_of(config)).status == "ok"


def test_test_mode_must_be_allowed(hospital: Hospital, run_config: Config) -> None:
    request = request_of(run_config(*PRIVATE, "privacy.test_seed=7"))
    code, sentence = refusal(train, hospital.site(), request)
    assert code == "policy" and "policy.test_mode" in sentence
    site = hospital.site(test_mode=True)
    train(site, request)
    ledger = read_ledger(site.folder.ledger)
    assert ledger is not None and not ledger.private
    # What is left of the ledger is no budget.
    private = replace(site, policy=replace(site.policy, max_epsilon=1000.0))
    assert refusal(train, private, request_of(run_config(*PRIVATE), 2))[0] == "budget"


@pytest.mark.parametrize("test_seed", ["7", "null"])
def test_only_test_mode_can_be_repeated(hospital: Hospital, run_config: Config, test_seed: str) -> None:
    """Noise that follows from the run's seed could be subtracted by the server and by every other site."""
    request = request_of(run_config(*PRIVATE, f"privacy.test_seed={test_seed}"))
    updates: list[dict[str, Tensor]] = [
        load(train(hospital.site(name, test_mode=True), request).update) for name in ("one", "two")
    ]
    if test_seed == "7":
        assert_close(updates[0], updates[1], rtol=0, atol=0)
    else:
        # Noise as large as the clip: about half of the signs are other ones.
        differ = [(updates[0][name].sign() != updates[1][name].sign()).flatten() for name in updates[0]]
        assert torch.cat(differ).float().mean() > 0.1


def test_the_studys_delta_is_kept(hospital: Hospital, run_config: Config) -> None:
    """An epsilon means nothing without its delta: one ledger has one."""
    config = run_config(*PRIVATE)
    site = hospital.site(delta=1e-3)
    train(site, request_of(config))
    head = json.loads((site.folder.ledger / "head.json").read_text())
    assert head["delta"] == 1e-3
    code, sentence = refusal(train, hospital.site(delta=1e-2), request_of(config, 2))
    assert code == "ledger" and "policy.delta=0.01" in sentence and "0.001" in sentence
    train(hospital.site(), request_of(config, 2))  # no word of its own: the ledger's
    assert len(charges(site)) == 2
