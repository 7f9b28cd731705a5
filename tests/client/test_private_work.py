"""A private round at one site: what is charged, what is told, and what is refused."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import Tensor
from torch.testing import assert_close

import client.privacy
from client.ledger import Charge, ledger_folder, read_ledger
from client.policy import DeclinedError
from client.privacy import plan_round
from client.work import evaluate, prepare, train
from server.rounds import initial_model
from shared.codec import travelling, weights_to_bytes
from shared.config import RunConfig
from shared.messages import Request
from shared.site_config import PolicyConfig, SiteConfig
from simulation.mock import MockConfig, write_mock

PATIENTS = 4
# All patients are in each step, whatever number is drawn to be told: nothing is left to chance.
PRIVATE = ("privacy=dp_sgd", "privacy.batch=10000", "privacy.patches=1", "data.validation=0", "train.steps=1")
Config = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    write_mock(MockConfig(patients=PATIENTS, size=(16, 16, 16), radius_max=6), root, 1)
    return root


@dataclass
class Hospital:
    scans: Path
    folder: Path

    def site(self, name: str = "work", **policy: object) -> SiteConfig:
        """The hospital with another work folder, or another policy."""
        accepts = PolicyConfig(**policy)  # type: ignore[arg-type]
        work = str(self.folder / name)
        return SiteConfig(name="a", root=str(self.scans), labels="mock", work=work, policy=accepts, device="cpu")


@pytest.fixture
def hospital(scans: Path, tmp_path: Path) -> Hospital:
    return Hospital(scans, tmp_path)


def request_of(config: RunConfig, round: int = 1) -> Request:
    weights = weights_to_bytes(travelling(initial_model(config)))
    return Request(run_id="r", round=round, config=config, weights=weights)


def other_weights(request: Request) -> Request:
    """The same round once more, as after the server was restored from a backup."""
    first = load(request.weights)
    return replace(request, weights=weights_to_bytes({name: tensor + 0.01 for name, tensor in first.items()}))


def charges(site: SiteConfig, what: str = "train") -> list[Charge]:
    ledger = read_ledger(ledger_folder(site.work))
    return [charge for charge in ledger.charges if charge.what == what] if ledger else []


def refusal(work: Callable[..., object], site: SiteConfig, request: Request) -> tuple[str, str]:
    with pytest.raises(DeclinedError) as refused:
        work(site, request)
    return refused.value.code, str(refused.value)


@pytest.mark.parametrize("told", [1, 30])
def test_what_leaves_follows_from_what_is_told(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    """Noise, rate and divisor show in an update: were they of the exact number, that would be told for free."""
    monkeypatch.setattr("client.private_work.patients_to_tell", lambda job, ledger: told)
    site, config = hospital.site(), run_config(*PRIVATE, f"privacy.batch={PATIENTS}")
    train(site, request_of(config))
    (charge,) = charges(site)
    assert charge.rate == min(1.0, PATIENTS / told)
    plan = plan_round(config, 1, told, 1e-4, ((site.policy.count_noise, 1.0, 1),))
    assert charge.sigma == plan.sigma


def test_a_number_is_drawn_once_however_patients_are_parted(hospital: Hospital, run_config: Config) -> None:
    """Else equal numbers for two splits would tell that both have as many training patients."""
    site = hospital.site()
    for seed in range(3):
        with suppress(DeclinedError):
            prepare(site, request_of(run_config("privacy=dp_sgd", f"data.split_seed={seed}", "data.validation=0.4")))
    assert len(charges(site, "count")) == 1


def test_another_split_is_declined(hospital: Hospital, run_config: Config) -> None:
    """It would put training patients on the other side, where metrics might be told of them."""
    site = hospital.site(metrics="always")
    prepare(site, request_of(run_config("privacy=dp_sgd", "data.validation=0.4")))
    for work in (train, evaluate):
        code, sentence = refusal(work, site, request_of(run_config("privacy=dp_sgd", "data.validation=0.2")))
        assert code == "ledger" and "data.validation=0.2" in sentence and "data.validation=0.4" in sentence


def test_a_run_stays_within_its_own_epsilon(hospital: Hospital, run_config: Config) -> None:
    """Whatever it asks for: here the same last round three times, each with other weights. No ceiling is set."""
    site, config = hospital.site(), run_config(*PRIVATE, "rounds=1", "privacy.epsilon=2")
    first = request_of(config)
    train(site, first)
    code, sentence = refusal(train, site, other_weights(first))
    assert code == "budget" and "privacy.epsilon=2" in sentence
    assert len(charges(site)) == 1


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
    ledger = read_ledger(ledger_folder(site.work))
    assert ledger is not None and ledger.epsilon() < config.privacy.epsilon


def test_a_whole_update_over_the_ceiling_stays(hospital: Hospital, run_config: Config) -> None:
    site = hospital.site(max_epsilon=1.0, count_noise=100.0)
    code, sentence = refusal(train, site, request_of(run_config("privacy=local_update", "data.validation=0")))
    assert code == "budget" and "policy.max_epsilon=1" in sentence


def test_noise_at_the_server_is_no_privacy_of_the_update(hospital: Hospital, run_config: Config) -> None:
    """A site with a ceiling cannot see that the noise is added."""
    code, sentence = refusal(train, hospital.site(max_epsilon=5.0), request_of(run_config("privacy=central")))
    assert code == "budget" and "central" in sentence


def test_a_round_that_broke_off_stays_charged(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what of it had left the process; the next try has noise of its own."""
    site, request, seen = hospital.site(), request_of(run_config(*PRIVATE)), []
    original = client.privacy.patient_gradient

    def fail(*given: object) -> object:
        seen.append(given)
        if len(seen) == PATIENTS // 2:
            raise MemoryError
        return original(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(client.privacy, "patient_gradient", fail)
        with pytest.raises(MemoryError):
            train(site, request)
    assert len(charges(site)) == 1
    ledger = read_ledger(ledger_folder(site.work))
    assert ledger is not None
    spent = ledger.epsilon()
    told = train(site, request).epsilon
    assert len(charges(site)) == 2
    assert told is not None and told > spent


def test_what_a_private_site_tells(hospital: Hospital, run_config: Config, tmp_path: Path) -> None:
    """No loss, no exact number; one noisy number for a cohort, drawn once; epsilon to a tenth and never too low."""
    hospital.scans, scans = tmp_path / "scans", hospital.scans
    hospital.scans.mkdir()
    for folder in scans.iterdir():
        (hospital.scans / folder.name).symlink_to(folder)
    broken = hospital.scans / "Mock-01999-000"
    broken.mkdir()
    for kind in ("t1n", "seg"):
        (broken / f"{broken.name}-{kind}.nii.gz").write_bytes(b"no image")
    site, config = hospital.site(), run_config(*PRIVATE)
    replies = [prepare(site, request_of(config)), *(train(site, request_of(config, round)) for round in (1, 2))]
    (count,) = charges(site, "count")
    assert count.noisy is not None
    assert [reply.patients for reply in replies] == [max(1, count.noisy)] * 3
    assert all(reply.metrics == {} and reply.left_out == {} for reply in replies)
    assert replies[0].epsilon is None
    exact = read_ledger(ledger_folder(site.work))
    assert exact is not None and replies[2].epsilon is not None
    assert 0 <= replies[2].epsilon - exact.epsilon() < 0.1
    assert replies[2].epsilon == round(replies[2].epsilon, 1)
    assert exact.epsilon() <= config.privacy.epsilon  # of four rounds, with the number of patients
    open_site = hospital.site("open", metrics="always", counts="always")
    reply = train(open_site, request_of(config))
    assert reply.patients == PATIENTS and sum(reply.left_out.values()) == 1
    assert math.isfinite(reply.metrics["loss"])
    assert charges(open_site, "count") == []  # an exact number has no noise to pay for


def test_the_noisy_number_is_noisy(hospital: Hospital, run_config: Config) -> None:
    """At a deviation of 1e6 the number is not that of the patients; and it is never below one."""
    request = request_of(run_config(*PRIVATE))
    told = [prepare(hospital.site(str(number), count_noise=1e6), request).patients for number in range(8)]
    assert min(told) >= 1 and max(told) > 1000
    assert len({number for number in told if number > 1}) == sum(number > 1 for number in told)


def test_all_rounds_spend_what_the_run_asks_for(hospital: Hospital, run_config: Config) -> None:
    """The number of patients is paid from the same budget; the noise is found to a thousandth."""
    config, site = run_config(*PRIVATE, "rounds=2", "privacy.epsilon=3"), hospital.site()
    told = [train(site, request_of(config, round)).epsilon for round in (1, 2)]
    ledger = read_ledger(ledger_folder(site.work))
    assert ledger is not None
    assert 2.98 < ledger.epsilon() <= 3.0
    assert told[0] is not None and told[0] < 3.0 and told[1] == 3.0


def test_nothing_is_evaluated_in_private(hospital: Hospital, run_config: Config) -> None:
    request = request_of(run_config(*PRIVATE))
    assert refusal(evaluate, hospital.site(), request)[0] == "withheld"
    assert evaluate(hospital.site(metrics="always"), request).status == "ok"


def test_a_ceiling_needs_privacy(hospital: Hospital, run_config: Config) -> None:
    """Before anything is read: the site need not even have data."""
    site = replace(hospital.site(max_epsilon=5.0), root="/nowhere")
    code, sentence = refusal(train, site, request_of(run_config("data.validation=0")))
    assert code == "budget" and "policy.max_epsilon=5" in sentence


def test_a_round_over_the_ceiling_takes_no_step(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.privacy, "patient_gradient", None)  # a step would raise
    site = hospital.site(max_epsilon=0.6, count_noise=100.0)
    code, sentence = refusal(train, site, request_of(run_config(*PRIVATE)))
    assert code == "budget" and "train of round 1" in sentence
    assert charges(site) == [] and len(charges(site, "count")) == 1


def test_a_budget_that_the_number_of_patients_spends(hospital: Hospital, run_config: Config) -> None:
    """No noise of the steps can mend it; the site's log says which two settings are at odds."""
    site = hospital.site(count_noise=0.1)
    code, sentence = refusal(train, site, request_of(run_config(*PRIVATE, "privacy.epsilon=1")))
    assert code == "budget" and "privacy.epsilon=1" in sentence and "policy.count_noise=0.1" in sentence


def test_test_mode_must_be_allowed(hospital: Hospital, run_config: Config) -> None:
    request = request_of(run_config(*PRIVATE, "privacy.test_seed=7"))
    code, sentence = refusal(train, hospital.site(), request)
    assert code == "policy" and "policy.test_mode" in sentence
    site = hospital.site(test_mode=True)
    train(site, request)
    ledger = read_ledger(ledger_folder(site.work))
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
    head = json.loads((ledger_folder(site.work) / "head.json").read_text())
    assert head["delta"] == 1e-3
    code, sentence = refusal(train, hospital.site(delta=1e-2), request_of(config, 2))
    assert code == "ledger" and "policy.delta=0.01" in sentence and "0.001" in sentence
    train(hospital.site(), request_of(config, 2))  # no word of its own: the ledger's
    assert len(charges(site)) == 2


def test_a_tighter_policy_holds_for_what_is_stored(hospital: Hospital, run_config: Config) -> None:
    site, request = hospital.site(metrics="always"), request_of(run_config(*PRIVATE))
    reply = train(site, request)
    assert reply.metrics.keys() == {"loss"}
    assert train(hospital.site(), request) == replace(reply, metrics={})
