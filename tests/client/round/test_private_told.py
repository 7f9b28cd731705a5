"""What a site tells in a private run: noisy numbers, and nothing that no budget covers."""

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from judged_site import evaluate, prepare, train
from private_hospital import PATIENTS, PRIVATE, Config, Hospital, charges, refusal, request_of

from gliofed.client.app import make_client_app
from gliofed.client.doctor.consent import add_withdrawn
from gliofed.client.round.ledger import read_ledger
from gliofed.client.round.policy import DeclinedError
from gliofed.client.round.privacy import plan_round
from gliofed.shared.messages import Reply, Request
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.wording import quantity
from gliofed.simulation.grid import LocalGrid


@pytest.mark.parametrize("told", [1, 30])
def test_what_leaves_follows_from_what_is_told(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    """Noise, rate and divisor show in an update: were they of the exact number, that would be told for free."""
    monkeypatch.setattr("gliofed.client.round.private_work.patients_to_report", lambda job, ledger: told)
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


def test_whoever_is_to_be_tested_is_counted_and_does_not_train(hospital: Hospital, run_config: Config) -> None:
    """The noisy number is of all patients, and what is told of it is the share that trains."""
    site = hospital.site(count_noise=0.1, test_mode=True)
    words = ("privacy=dp_sgd", "privacy.test_seed=1", "privacy.epsilon=1000", "data.validation=0", "data.test=0.5")
    told = prepare(site, request_of(run_config(*words, "data.split_seed=1"))).patients
    (count,) = charges(site, "count")
    assert (count.noisy, told) == (PATIENTS, PATIENTS // 2) and count.patients < PATIENTS


def test_a_run_keeps_its_number_when_a_patient_withdraws(hospital: Hospital, run_config: Config) -> None:
    """A second draw would tell that somebody left, and be charged: the budget would not hold the last round."""
    site, config = hospital.site(), run_config(*PRIVATE, "rounds=3", "privacy.epsilon=2")
    other = replace(request_of(config), run_id="other")
    told = [prepare(site, request_of(config)).patients, train(site, other).patients]
    add_withdrawn(Path(site.work), "Mock-01000")
    told += [train(site, request_of(config, round)).patients for round in (1, 2, 3)]
    told += [train(site, replace(other, round=round)).patients for round in (2, 3)]  # which reused the first one's
    assert len({*told}) == 1 == len(charges(site, "count"))
    assert [charge.patients for charge in charges(site)] == [PATIENTS] + [PATIENTS - 1] * 5
    prepare(site, replace(other, run_id="next"))  # has other patients from the first on
    assert len(charges(site, "count")) == 2


def test_a_split_tells_nobody_who_is_there(hospital: Hospital, run_config: Config) -> None:
    """Which of two patients would train in a split of the server's choice says whether they are at the site."""
    site = hospital.site(min_patients=PATIENTS, max_readings=6)

    def asked(seed: int) -> Request:
        return request_of(run_config(*PRIVATE, "data.validation=0.5", f"data.split_seed={seed}"))

    assert prepare(site, asked(0)).status == "ok"  # all patients are counted, whoever trains
    assert {refusal(prepare, site, asked(seed))[0] for seed in range(1, 6)} == {"ledger"}


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
    exact = read_ledger(site.folder.ledger)
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


def test_two_readings_of_the_same_patients_have_numbers_of_their_own(hospital: Hospital, run_config: Config) -> None:
    """The same one would tell that both use the same patients; each is charged, and drawn once."""
    site = hospital.site(count_noise=1e6)
    visits, series = run_config(*PRIVATE), run_config(*PRIVATE, "model=clstm_unet3d", "data.window=1")
    told = [prepare(site, request_of(config)).patients for config in (visits, series, visits, series)]
    assert told[:2] == told[2:]
    noisy = [charge.noisy for charge in charges(site, "count")]
    assert len(noisy) == 2 and noisy[0] != noisy[1]


def test_nothing_is_evaluated_in_private(hospital: Hospital, run_config: Config) -> None:
    request = request_of(run_config(*PRIVATE))
    assert refusal(evaluate, hospital.site(), request)[0] == "withheld"
    assert evaluate(hospital.site(metrics="always"), request).status == "ok"


@pytest.mark.parametrize("mechanism", ["none", "dp_sgd"])
def test_few_test_patients_are_as_much_protected_as_few_of_validation(
    hospital: Hospital, run_config: Config, mechanism: str
) -> None:
    config = run_config(f"privacy={mechanism}", "data.validation=0", "data.test=0.8")
    request = replace(request_of(config), part="test")
    measured = evaluate(hospital.site(metrics="always"), request).patients
    assert 0 < measured < PATIENTS
    site = hospital.site("other", metrics="always", min_validation=measured + 1)
    code, sentence = refusal(evaluate, site, request)
    assert code == "few_validation" and sentence.startswith(f"{quantity(measured, 'test patient')}: policy.min")
    assert refusal(evaluate, hospital.site("third", metrics="never"), request)[0] == "withheld"


def test_a_metric_that_few_patients_have_stays_at_the_site(
    hospital: Hospital, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Change is of patients with several visits alone: the mean of one would be that patient's."""

    def measure_each(task: object, model: object, patients: list[object], *_: object) -> list[dict[str, float]]:
        return [{"dice": 0.5, **({"dice_change": 0.25} if place < 1 else {})} for place in range(len(patients))]

    monkeypatch.setattr("gliofed.client.round.work.measure_each", measure_each)
    request = request_of(run_config("data.validation=0.8"))
    assert evaluate(hospital.site(metrics="always"), request).metrics == {"dice": 0.5, "dice_change": 0.25}
    site = hospital.site("other", metrics="always", min_validation=2)
    assert evaluate(site, request).metrics == {"dice": 0.5}


@pytest.mark.parametrize("counts", ["unless_private", "always"])
def test_questions_by_refusal_have_one_answer(hospital: Hospital, run_config: Config, counts: str) -> None:
    """Whoever asks for one window, split or modality after the other reads off the codes who is there."""
    questions = [
        ("prepare", (), {"min_patients": PATIENTS + 1}),
        ("prepare", ("model=clstm_unet3d", "data.window=4"), {}),
        ("prepare", ("data.modalities=[pet]",), {}),
        ("prepare", ("data.regions=[nowhere]",), {}),
        ("evaluate", ("data.validation=0.5", "data.split_seed=1"), {"metrics": "always", "min_validation": PATIENTS}),
    ]
    codes, replies = [], []
    for number, (kind, words, policy) in enumerate(questions):
        site = hospital.site(str(number), counts=counts, **policy)
        reply = answer(site, kind, request_of(run_config(*PRIVATE, *words)))
        codes.append(reply.code)
        replies.append(repr(replace(reply, head="", records="")))
    if counts == "always":
        assert codes == ["too_few_patients", "no_series", "missing_modality", "data", "few_validation"]
    else:
        assert set(replies) == {repr(Reply(site="a", status="declined", code="undisclosed"))}


def answer(site: SiteConfig, kind: str, request: Request) -> Reply:
    """What leaves the site, of the whole app."""
    app = make_client_app(lambda _: site)
    LocalGrid(app, {}, 1, 1.0)  # a Message needs to know who speaks
    records = replace(request, head="0" * 64).to_records()
    kind = "query" if kind == "prepare" else kind
    return Reply.from_records(app(Message(records, 1, kind), Context(1, 1, {}, RecordDict(), {})).content)


def test_a_tighter_policy_holds_for_what_is_stored(hospital: Hospital, run_config: Config) -> None:
    site, request = hospital.site(metrics="always"), request_of(run_config(*PRIVATE))
    reply = train(site, request)
    assert reply.metrics.keys() == {"loss"}
    assert train(hospital.site(), request) == replace(reply, metrics={})
