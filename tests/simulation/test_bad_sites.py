"""A site that sends nonsense, fails or hangs: it is named, and the others' model is as if it were not there."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plain_federation import mean_without_flower, model_of, rounds_of
from small_run import composed
from torch import Tensor
from torch.testing import assert_close

import client.round.work
from shared.messages import Reply, Request
from shared.site_config import SiteConfig
from simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]

FAULTS = {
    "nan": ("refused", "not finite"),
    "inf": ("refused", "not finite"),
    "scale": ("refused", "norm"),
    "shape": ("refused", "wrong shape"),
    "zero_patients": ("refused", "0 patients"),
    "raise": ("failed", "the site's program failed"),
    "hang": ("late", "no answer within round.deadline=2 s"),
}
SEEN_AS_NAN = ("inf", "shape", "zero_patients")
"""Refused at the same place as nan; test_gate.py and the test of codecs look at their words."""


@pytest.fixture(scope="module")
def honest_mean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Two rounds of the three others: the same, whatever the fourth does."""
    honest = ["site-1", "site-3", "site-4"]
    return mean_without_flower(composed("sites=4"), tmp_path_factory.mktemp("plain"), honest)


@pytest.mark.parametrize("fault", [pytest.param(f, marks=pytest.mark.slow) if f in SEEN_AS_NAN else f for f in FAULTS])
def test_one_bad_site_of_four_does_not_count(
    values: Values, out: Path, honest_mean: dict[str, Tensor], fault: str
) -> None:
    overrides = ["sites=4", f"faults={{site-2:{fault}}}", f"out={out}"]
    if fault == "hang":
        overrides.append("round.deadline=2")
    outcome = simulate(values(*overrides))
    assert outcome.status == "incomplete"
    status, reason = FAULTS[fault]
    first, second = rounds_of(out)
    for number, event in enumerate((first, second)):
        line = event["sites"]["site-2"]
        if fault == "hang" and number:  # asked once only
            assert (line["status"], line["reason"]) == ("not_asked", "has not answered since round 1")
        else:
            assert line["status"] == status
            assert reason in line["reason"]
        others = [event["sites"][site]["status"] for site in ("site-1", "site-3", "site-4")]
        assert others == ["counted"] * 3
    assert_close(model_of(out), honest_mean, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("work", "at_once"),
    [
        ("prepare", 1),
        ("evaluate", 4),
        pytest.param("prepare", 4, marks=pytest.mark.slow),
        pytest.param("evaluate", 1, marks=pytest.mark.slow),
    ],
)
def test_a_site_that_hangs_elsewhere_is_named_and_asked_once(
    values: Values, out: Path, monkeypatch: pytest.MonkeyPatch, work: str, at_once: int
) -> None:
    """Loading is where a real site is likeliest to hang."""
    original, release = getattr(client.round.work, work), threading.Event()

    def hang(site: SiteConfig, request: Request) -> Reply:
        if site.name == "site-2":
            release.wait()
        reply: Reply = original(site, request)
        return reply

    monkeypatch.setattr(client.round.work, work, hang)
    outcome = simulate(values("sites=4", "rounds=2", "round.deadline=2", f"at_once={at_once}", f"out={out}"))
    release.set()
    assert outcome.hung
    first, second = (event["sites"] for event in rounds_of(out))
    assert first.keys() == second.keys() == {"site-1", "site-2", "site-3", "site-4"}
    expected = {"prepare": ("late", "no answer"), "evaluate": ("counted", "evaluation late")}[work]
    assert first["site-2"]["status"] == expected[0]
    assert first["site-2"]["reason"].startswith(expected[1])
    assert second["site-2"]["status"] == "not_asked"


def test_faults_are_what_they_say_in_every_codec(values: Values, out: Path) -> None:
    """int8 has no NaN: the gate must see it all the same. More than half of the sites are honest, as the norms need."""
    bad = {"site-2": "nan", "site-4": "inf", "site-6": "scale", "site-8": "shape"}
    faults = ",".join(f"{site}:{fault}" for site, fault in bad.items())
    simulate(values("sites=9", "rounds=1", "codec=int8", f"faults={{{faults}}}", f"out={out}"))
    (event,) = rounds_of(out)
    for site, fault in bad.items():
        assert FAULTS[fault][1] in event["sites"][site]["reason"]
    assert sum(line["status"] == "counted" for line in event["sites"].values()) == 5
