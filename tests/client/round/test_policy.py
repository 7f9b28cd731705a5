"""What a hospital accepts: each refusal is a code, and a sentence for its own log."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from judged_site import admitted, train

import gliofed.client.round.judge
import gliofed.shared.chain
from gliofed.client.round.ledger import read_ledger
from gliofed.client.round.outbox import Outbox
from gliofed.client.round.policy import DeclinedError, check_hours, check_run, reply_key
from gliofed.server.round.model import initial_model
from gliofed.shared.accounting import default_delta
from gliofed.shared.codec import travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import CODES, Reply, Request
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.site_config import PolicyConfig, SiteConfig
from gliofed.simulation.mock import MockConfig, write_mock

Config = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("policy", "overrides", "sentence"),
    [
        ({"tasks": ("grading",)}, (), "task=segmentation: policy.tasks allows grading"),
        ({"codecs": ("fp16", "int8")}, ("codec=fp32",), "codec=fp32: policy.codecs allows fp16, int8"),
        ({"mechanisms": ("dp_sgd",)}, (), "privacy=none: policy.mechanisms allows dp_sgd"),
        ({"mechanisms": ("dp_sgd",)}, ("privacy=local_update",), "privacy=local_update: policy.mechanisms"),
        ({"models": ()}, (), "model.name=unet: policy.models allows none"),
    ],
)
def test_a_word_that_is_not_allowed(
    run_config: Config, policy: dict[str, tuple[str, ...]], overrides: tuple[str, ...], sentence: str
) -> None:
    accepts = PolicyConfig(**policy)  # type: ignore[arg-type]
    with pytest.raises(DeclinedError, match=sentence) as refused:
        check_run(accepts, run_config(*overrides))
    assert refused.value.code == "policy"


def test_words_that_are_allowed(run_config: Config) -> None:
    words = {"tasks": ["segmentation"], "codecs": ["fp32", "fp16"], "mechanisms": ["none", "dp_sgd"]}
    check_run(parse(PolicyConfig, words), run_config("codec=fp16"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"tasks": ["grade"]}, "policy.tasks"),
        ({"codecs": ["zip"]}, "policy.codecs"),
        ({"mechanisms": ["dp"]}, "policy.mechanisms"),
        ({"min_noise": 0}, "policy.min_noise"),
        ({"max_rounds_a_day": 0}, "policy.max_rounds_a_day"),
        ({"hours": "8-18"}, "policy.hours"),
        ({"hours": "20:00-24:00"}, "policy.hours"),
        ({"hours": "20:00-20:00"}, "begins when it ends"),
    ],
)
def test_a_mistyped_policy_is_no_policy(words: dict[str, object], sentence: str) -> None:
    """A word that no run has would keep every run out, or let every one in."""
    with pytest.raises(ConfigError, match=sentence):
        parse(PolicyConfig, words, "policy")


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("20:00-06:00", ["20:00", "23:59:59", "00:00", "05:59:59"], ["06:00", "12:00", "19:59:59"]),
        ("08:00-17:30", ["08:00", "12:00", "17:29:59"], ["17:30", "00:00", "07:59:59"]),
        ("00:00-06:00", ["00:00", "05:59"], ["06:00", "23:59"]),
        ("20:00-00:00", ["20:00", "23:59:59"], ["00:00", "19:59"]),
    ],
)
def test_hours_may_pass_midnight(hours: str, inside: list[str], outside: list[str]) -> None:
    """The first minute is in, the last is out."""
    policy = PolicyConfig(hours=hours)
    for clock in inside:
        check_hours(policy, time.fromisoformat(clock))
    for clock in outside:
        with pytest.raises(DeclinedError, match=rf"policy\.hours={hours}") as refused:
            check_hours(policy, time.fromisoformat(clock))
        assert refused.value.code == "hours"
    check_hours(PolicyConfig(), time(3))


def test_every_code_that_may_leave_has_words() -> None:
    """An unknown code would leave as `data`."""
    assert {"policy", "hours", "rounds_a_day", "audit", "budget"} <= CODES.keys()


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    policy = PolicyConfig(max_rounds_a_day=2)
    return SiteConfig(name="a", root=str(tmp_path / "scans"), labels="mock", work=str(tmp_path / "work"), policy=policy)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Set the site's clock so much after its start, for the policy and for the lines of the log."""
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def set_to(later: timedelta) -> None:
        for module in (gliofed.client.round.judge, gliofed.shared.chain):
            monkeypatch.setattr(module, "_now", lambda: start + later)

    return set_to


@pytest.fixture
def first(run_config: Config) -> Request:
    config = run_config()
    return Request(run_id="r", round=1, config=config, weights=weights_to_bytes(travelling(initial_model(config))))


def test_rounds_of_a_day(site: SiteConfig, first: Request, at: Callable[[timedelta], None]) -> None:
    """Counted in the log, so by every process: of all runs, in any 24 hours, and not from midnight."""

    def asks(round: int, kind: str = "train", run: str = "r", site: SiteConfig = site) -> str:
        try:
            admitted(kind, site, replace(first, run_id=run, round=round))
        except DeclinedError as error:
            return error.code
        return "ok"

    at(timedelta(0))
    assert [asks(1), asks(1, "prepare"), asks(1, "evaluate")] == ["ok"] * 3  # only training is a round
    at(timedelta(hours=10))
    assert [asks(2), asks(3), asks(1, run="another"), asks(3, "evaluate")] == ["ok", *["rounds_a_day"] * 2, "ok"]
    at(timedelta(hours=23, minutes=59))
    assert asks(3) == "rounds_a_day"
    at(timedelta(hours=24))  # the first is a day ago; who was declined is not counted
    assert [asks(3), asks(4)] == ["ok", "rounds_a_day"]
    assert asks(4, site=replace(site, policy=PolicyConfig(max_rounds_a_day=3))) == "ok"


def test_a_stored_reply_is_no_new_round(site: SiteConfig, first: Request) -> None:
    """A server that was restarted may ask again on a day that is full, and what it gets counts for nothing."""
    requests = [replace(first, round=number) for number in (1, 2, 3)]
    for request in requests[:2]:
        admitted("train", site, request)
    Outbox(Path(site.work) / "outbox").store(reply_key(site.policy, requests[1]), Reply(site="a", update=b"u"))
    for _ in range(3):
        admitted("train", site, requests[1])
    for request in (requests[0], requests[2]):  # the first was killed before its reply was stored: it trains anew
        with pytest.raises(DeclinedError, match=r"2 rounds in the last 24 hours: policy\.max_rounds_a_day=2"):
            admitted("train", site, request)


def test_a_stored_reply_is_sent_at_any_hour(site: SiteConfig, first: Request, at: Callable[[timedelta], None]) -> None:
    """Its training is done; without it the round would lose the site for nothing."""
    clock = datetime(2026, 3, 1, 12, tzinfo=UTC).astimezone()
    until = (clock + timedelta(hours=1)).strftime("%H:%M")
    site = replace(site, policy=PolicyConfig(hours=f"{clock:%H:%M}-{until}"))
    at(timedelta(minutes=30))
    admitted("train", site, first)
    at(timedelta(hours=2))
    with pytest.raises(DeclinedError, match=r"policy\.hours"):
        admitted("train", site, first)
    Outbox(Path(site.work) / "outbox").store(reply_key(site.policy, first), Reply(site="a", update=b"u"))
    admitted("train", site, first)


def test_the_least_noise(run_config: Config, tmp_path: Path) -> None:
    """Declined by the site's own number of patients, before anything is charged; more noise is accepted."""
    patients = 4
    write_mock(MockConfig(patients=patients, size=(16, 16, 16), radius_max=6), tmp_path / "scans", 1)
    config = run_config("privacy=dp_sgd", f"privacy.batch={patients}", "data.validation=0", "train.steps=1")
    from gliofed.client.round.privacy import plan_round  # Opacus takes seconds to load

    sigma = plan_round(config, 1, patients, default_delta(patients)).sigma
    request = Request(run_id="r", round=1, config=config, weights=weights_to_bytes(travelling(initial_model(config))))

    def trained(least: float, work: str, request: Request = request) -> Reply:
        policy = PolicyConfig(min_noise=least, counts="always")
        scans, folder = str(tmp_path / "scans"), str(tmp_path / work)
        site = SiteConfig(name="a", root=scans, labels="mock", work=folder, policy=policy, device="cpu")
        return train(site, request)

    with pytest.raises(DeclinedError, match=r"policy\.min_noise asks for") as refused:
        trained(sigma * 1.001, "strict")
    assert refused.value.code == "policy"
    ledger = read_ledger(tmp_path / "strict" / "ledger")
    assert ledger is not None and not ledger.charges
    assert trained(sigma * 0.999, "content").status == "ok"
    assert trained(1e6, "not private", replace(request, config=run_config("data.validation=0"))).patients == patients
