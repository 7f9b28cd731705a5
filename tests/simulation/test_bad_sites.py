"""A site that sends nonsense, fails or hangs: it is named, and the others' model is as if it were not there."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hanging import time_is_over
from judged_site import train
from plain_federation import mean_without_flower, model_of, rounds_of, sites_of
from small_run import SMALL, SMALL_GRADING, as_given, composed
from torch import Tensor
from torch.testing import assert_close

import gliofed.client.round.work
from gliofed.client.round.judge import Admitted
from gliofed.server.round.clip import Clipped
from gliofed.server.round.fold import Share, weighted_mean
from gliofed.server.round.history import History
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import CodedUpdate, travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.parse import ConfigError
from gliofed.simulation.cli import STATUS
from gliofed.simulation.faults import parse_faults
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]

FAULTS = {
    "nan": ("refused", "not finite"),
    "inf": ("refused", "not finite"),
    "shape": ("refused", "wrong shape"),
    "zero_patients": ("refused", "0 patients"),
    "raise": ("failed", "the site's program failed"),
    "hang": ("late", "no answer within round.deadline=600 s"),
}
SEEN_AS_NAN = ("inf", "shape", "zero_patients")
"""Refused at the same place as nan; test_gate.py and the test of codecs look at their words."""


@pytest.fixture(scope="module")
def honest_mean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Two rounds of the two others: the same, whatever the third does."""
    honest = ["site-1", "site-3"]
    return mean_without_flower(composed("sites=3"), tmp_path_factory.mktemp("plain"), honest)


@pytest.mark.parametrize("fault", [pytest.param(f, marks=pytest.mark.slow) if f in SEEN_AS_NAN else f for f in FAULTS])
def test_one_bad_site_of_three_does_not_count(
    values: Values, out: Path, honest_mean: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    overrides = ["sites=3", f"faults={{site-2:{fault}}}", f"out={out}"]
    if fault == "hang":
        time_is_over(monkeypatch, 2, "train")
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
        others = [event["sites"][site]["status"] for site in ("site-1", "site-3")]
        assert others == ["counted"] * 2
    assert_close(model_of(out), honest_mean, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "at_once"),
    [
        ("prepare", 1),
        ("evaluate", 4),
        ("prepare", 4),
        ("evaluate", 1),
    ],
)
def test_a_site_that_hangs_elsewhere_is_named_and_asked_once(
    values: Values, out: Path, monkeypatch: pytest.MonkeyPatch, work: str, at_once: int
) -> None:
    """Loading is where a real site is likeliest to hang."""
    original, release = getattr(gliofed.client.round.work, work), threading.Event()

    def hang(admitted: Admitted) -> Reply:
        if admitted.site.name == "site-2":
            release.wait()
        reply: Reply = original(admitted)
        return reply

    monkeypatch.setattr(gliofed.client.round.work, work, hang)
    time_is_over(monkeypatch, 2, {"prepare": "query"}.get(work, work))
    outcome = simulate(values("sites=3", "rounds=2", f"at_once={at_once}", f"out={out}"))
    release.set()
    assert outcome.hung
    first, second = (event["sites"] for event in rounds_of(out))
    assert first.keys() == second.keys() == {"site-1", "site-2", "site-3"}
    expected = {"prepare": ("late", "no answer"), "evaluate": ("counted", "evaluation late")}[work]
    assert first["site-2"]["status"] == expected[0]
    assert first["site-2"]["reason"].startswith(expected[1])
    assert second["site-2"]["status"] == "not_asked"


def test_a_run_that_no_site_could_evaluate_is_incomplete(
    values: Values, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended as done, with status 0 and no metrics."""

    def fail(*_: object) -> Reply:
        raise RuntimeError("no metric")

    monkeypatch.setattr(gliofed.client.round.work, "evaluate", fail)
    outcome = simulate(values("sites=2", "rounds=2", f"out={out}"))
    assert (outcome.status, STATUS[outcome.status]) == ("incomplete", 3)
    end = History(out / "history.jsonl").events()[-1]
    assert end["reason"].startswith("no site evaluated the model; at 2 of 2 sites evaluation failed: ")
    shown = capsys.readouterr().out
    assert "rounds 1-2: site-1 counted, but evaluation failed: " in shown and f"incomplete: {end['reason']}" in shown


@pytest.mark.slow
def test_faults_are_what_they_say_in_every_codec(values: Values, out: Path) -> None:
    """int8 has no NaN: the gate must see it all the same."""
    bad = {"site-2": "nan", "site-4": "inf", "site-8": "shape"}
    faults = ",".join(f"{site}:{fault}" for site, fault in bad.items())
    simulate(values("sites=9", "rounds=1", "codec=int8", f"faults={{{faults},site-6:scale}}", f"out={out}"))
    (event,) = rounds_of(out)
    for site, fault in bad.items():
        assert FAULTS[fault][1] in event["sites"][site]["reason"]
    assert event["sites"]["site-6"]["clipped"] < 0.05
    assert sum(line["status"] == "counted" for line in event["sites"].values()) == 6


@pytest.mark.slow
def test_a_flipped_update_is_clipped_to_the_size_of_the_others(values: Values, out: Path) -> None:
    """From the first round on; before the fault acts its site is as honest as any."""
    simulate(values("sites=4", "rounds=2", "faults={site-2:flip:19@2}", f"out={out}"))
    first, second = (event["sites"] for event in rounds_of(out))
    assert not any("clipped" in line for line in first.values())
    assert [site for site, line in second.items() if "clipped" in line] == ["site-2"]
    assert second["site-2"]["size"] == pytest.approx(19, rel=0.5)
    assert second["site-2"]["clipped"] == pytest.approx(1.5 / second["site-2"]["size"], rel=1e-3)


@pytest.mark.slow
def test_a_site_that_claims_a_billion_patients_counts_as_many_as_agreed(values: Values, tmp_path: Path) -> None:
    """The weights are those of the same update with its number as agreed; what it says of its Dice counts nothing."""
    simulate(values("sites=3", "data.validation=0.3", "faults={site-2:claim}", f"out={tmp_path / 'claim'}"))
    first, second = rounds_of(tmp_path / "claim")
    for event in (first, second):
        line = event["sites"]["site-2"]
        assert (line["status"], line["patients"], line["claimed"], line["evaluate"]) == ("counted", 3, 10**9, None)
        assert "more than the 3 that were agreed" in line["reason"]
    settings, run = values("sites=3", "data.validation=0.3"), parse_settings(values("data.validation=0.3"))[0]
    weights = travelling(initial_model(run))
    for number in (1, 2):
        request = Request(run_id="oracle", round=number, config=run, weights=weights_to_bytes(weights))
        sites = sites_of(settings, run, tmp_path / "plain")
        shares = []
        for site in sites:
            reply = train(site, request)
            (tmp_path / f"{site.name}.{number}").write_bytes(reply.update)
            update = CodedUpdate(tmp_path / f"{site.name}.{number}", "fp32")
            zero = site.name == "site-2"
            shares.append(
                Share(Clipped(update, dict.fromkeys(weights, 0.0), {}), 3) if zero else Share(update, reply.patients)
            )
        mean = weighted_mean(shares, weights)
        weights = {name: tensor + mean[name] for name, tensor in weights.items()}
    assert_close(model_of(tmp_path / "claim"), weights, rtol=0, atol=0)


@pytest.mark.slow
def test_a_norm_on_few_values_is_clamped(values: Values, out: Path) -> None:
    """Of a usual size as a whole; on the last bias alone it would decide for every voxel."""
    simulate(values("sites=4", "rounds=1", "faults={site-2:bias}", f"out={out}"))
    (event,) = rounds_of(out)
    line = event["sites"]["site-2"]
    assert "clipped" not in line and line["peak"] > 5
    assert not any("peak" in other for site, other in event["sites"].items() if site != "site-2")


@pytest.mark.slow
def test_bounds_that_nobody_meets_change_nothing(values: Values, tmp_path: Path) -> None:
    """Bit for bit."""
    for name, words in {"bounded": (), "free": ("fold.clip=null", "fold.max_share=1")}.items():
        simulate(values("sites=3", "rounds=1", *words, f"out={tmp_path / name}", f"data.root={tmp_path / 'data'}"))
    assert_close(model_of(tmp_path / "bounded"), model_of(tmp_path / "free"), rtol=0, atol=0)
    lines = [line for event in rounds_of(tmp_path / "bounded") for line in event["sites"].values()]
    assert not any({"clipped", "peak", "share_before"} & line.keys() for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("words", [pytest.param(SMALL, id="segmentation"), pytest.param(SMALL_GRADING, id="grading")])
def test_changed_samples_make_another_honest_looking_update(words: tuple[str, ...], tmp_path: Path) -> None:
    """Of both tasks: it differs from the honest one, and is of about its size."""
    always = ("sites=2", "rounds=1", "train.steps=2", f"data.root={tmp_path / 'data'}", "round.evaluate_every=0")
    models = []
    for fault in ("null", "{site-2:label_flip}", "{site-2:backdoor}"):
        out = tmp_path / fault.strip("{}").replace(":", "-")
        simulate(as_given(*words, *always, f"faults={fault}", f"out={out}"))
        (event,) = rounds_of(out)
        assert event["sites"]["site-2"]["status"] == "counted"
        assert "clipped" not in event["sites"]["site-2"]
        models.append(model_of(out))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert any(not torch.equal(models[one][name], models[other][name]) for name in models[0])


@pytest.mark.parametrize("fault", ["flap", "flip:", "flip:-1", "flip@x", "flip:1:2", "nan nan"])
def test_a_fault_that_there_is_not_is_refused_in_a_sentence(fault: str, run_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match=r"^faults\.site-1=.*: must be one of nan, inf, zero"):
        parse_faults({"site-1": fault}, ["site-1"], run_config())


def test_a_fault_that_trains_is_none_of_a_private_run(run_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match="does not train privately"):
        parse_faults({"site-1": "label_flip"}, ["site-1"], run_config("privacy=dp_sgd"))
